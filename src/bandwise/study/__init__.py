"""Studies: train a task with several optimizers, and say which differences are real."""

from bandwise.study.compare import compare, default_folder
from bandwise.study.errors import DamagedRunError, StudyError
from bandwise.study.results import Comparison, Results, Run

__all__ = [
    "Comparison",
    "DamagedRunError",
    "Results",
    "Run",
    "StudyError",
    "compare",
    "default_folder",
]
