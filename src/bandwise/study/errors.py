"""What can go wrong in a study, beside wrong arguments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StudyError(RuntimeError):
    """A study could not be finished; what it has done so far is kept."""


class DamagedRunError(StudyError):
    """A file of a run does not hold what the run wrote."""

    def __init__(self, path: Path, why: object) -> None:
        super().__init__(f"{path} is damaged ({why}); delete its folder to train that run anew")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Where a file of a run is read: whatever is wrong with it, the error names the file.

    Raises:
        DamagedRunError: something is.
    """
    try:
        yield
    except StudyError:
        raise
    except FileNotFoundError as error:
        raise DamagedRunError(path, "it is not there") from error
    except Exception as error:
        raise DamagedRunError(path, f"{type(error).__name__}: {error}") from error
