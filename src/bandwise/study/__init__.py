"""Studies: train a task with several optimizers, and say which differences are real."""

from bandwise.study.compare import StudyError, compare, default_folder
from bandwise.study.results import Comparison, Results, Run

__all__ = ["Comparison", "Results", "Run", "StudyError", "compare", "default_folder"]
