"""The optimizers, on torch alone: one file each, from top to bottom."""

from bandwise.optim.nsf import NSF
from bandwise.optim.schedules import Constant, Cosine, Cyclic, Linear, Schedule
from bandwise.optim.smi import SMI

__all__ = ["NSF", "SMI", "Constant", "Cosine", "Cyclic", "Linear", "Schedule"]
