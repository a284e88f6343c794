"""The errors of a study, and the contexts that raise them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


class StudyError(RuntimeError):
    """A study cannot be finished. Its finished runs are kept."""


class DamagedRunError(StudyError):
    """A file of a run does not hold what the run wrote."""

    def __init__(self, path: Path, why: object) -> None:
        super().__init__(f"{path} is damaged ({why}); delete its folder to train that run anew")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every error of reading a run's file into a DamagedRunError, which names the file."""
    try:
        yield
    except StudyError:
        raise
    except FileNotFoundError as error:
        raise DamagedRunError(path, "it is not there") from error
    except Exception as error:
        raise DamagedRunError(path, f"{type(error).__name__}: {error}") from error


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
