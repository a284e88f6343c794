"""Locks of folders: one command, or one process, works in a folder at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bandwise.study.errors import StudyError


@contextmanager
def locked(folder: Path, name: str = ".lock", *, wait: bool = False) -> Iterator[None]:
    """Keep others out of a folder, which is made if it is missing.

    Raises:
        StudyError: another command holds the lock of that name, and this one does not wait.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / name, timeout=-1 if wait else 0):
            yield
    except Timeout:
        raise StudyError(
            f"another command is working in {folder}: wait for it, or choose another folder"
        ) from None
