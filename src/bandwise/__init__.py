"""bandwise: spectral optimizers for PyTorch, and the instruments that show what they do."""

from typing import TYPE_CHECKING, Any

from bandwise.optim import NSF, SMI, Constant, Cosine, Cyclic, Linear, Schedule

if TYPE_CHECKING:
    from bandwise.lens import Lens, readings

__version__ = "0.1.0"

__all__ = [
    "NSF",
    "SMI",
    "Constant",
    "Cosine",
    "Cyclic",
    "Lens",
    "Linear",
    "Schedule",
    "__version__",
    "readings",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """What measures is no part of the optimizers: it is imported when it is asked for."""
    if name in ("Lens", "readings"):
        from bandwise import lens

        return getattr(lens, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
