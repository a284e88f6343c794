"""bandwise: spectral optimizers for PyTorch, and the instruments that show what they do."""

from bandwise.nsf import NSF
from bandwise.schedules import Constant, Cosine, Cyclic, Linear, Schedule
from bandwise.smi import SMI

__version__ = "0.1.0"

__all__ = ["NSF", "SMI", "Constant", "Cosine", "Cyclic", "Linear", "Schedule", "__version__"]
