"""What can go wrong in a study, beside wrong arguments."""

from __future__ import annotations

from pathlib import Path


class StudyError(RuntimeError):
    """A study could not be finished; what it has done so far is kept."""


class DamagedRunError(StudyError):
    """A file of a run does not hold what the run wrote."""

    def __init__(self, path: Path, why: object) -> None:
        super().__init__(f"{path} is damaged ({why}); delete its folder to train that run anew")
