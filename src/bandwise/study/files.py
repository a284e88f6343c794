"""Files that survive being cut off, and strict JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bandwise import _checksum
from bandwise.study.errors import StudyError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; what was written takes ``path``'s place at once, and only if all is
    well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename == str(temporary):
            # Who reads the message knows nothing of this one.
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, name: str = ".lock") -> Iterator[None]:
    """Keep other commands out of a folder, which is made if it is not there.

    Args:
        folder: where.
        name: of the lock, for a folder with several.

    Raises:
        StudyError: another is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / name, timeout=0):
            yield
    except Timeout:
        raise StudyError(
            f"another command is working in {folder}: wait for it, or choose another folder"
        ) from None


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make a folder and wait until no other process is in it; what one left half-written goes.

    Raises:
        OSError: it cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        for unfinished in folder.glob(".*.tmp"):
            unfinished.unlink()
        yield


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write strict JSON: numbers that are not finite become ``{"float": "nan"}`` and the like.

    A checksum is added: see ``bandwise._checksum``.
    """
    text = json.dumps(_checksum.sealed(_strict(data)), indent=1, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The inverse of ``write_json``.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON, or not what was written.
    """
    return _from_json(path.read_text(encoding="utf-8"), _checksum.opened)


def to_json(data: Any) -> str:
    """One line of strict JSON."""
    return json.dumps(_strict(data), allow_nan=False)


def from_json(text: str) -> Any:
    """The inverse of ``to_json``.

    Raises:
        ValueError: it is no JSON.
    """
    return _from_json(text, lambda data: data)


def _from_json(text: str, checked: Callable[[Any], Any]) -> Any:
    try:
        return _lenient(checked(json.loads(text)))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _strict(data: Any) -> Any:
    match data:
        case float() if not math.isfinite(data):
            return {"float": str(data)}
        case dict():
            return {key: _strict(value) for key, value in data.items()}
        case list() | tuple():
            return [_strict(value) for value in data]
        case _:
            return data


def _lenient(data: Any) -> Any:
    match data:
        case {"float": "nan" | "inf" | "-inf" as text} if len(data) == 1:
            return float(text)
        case dict():
            return {key: _lenient(value) for key, value in data.items()}
        case list():
            return [_lenient(value) for value in data]
        case _:
            return data
