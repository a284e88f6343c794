"""Checks of arguments: their errors name the argument, its value and what would be right."""

import math
import sys
import warnings
from pathlib import Path

import torch

# The frames of torch and of bandwise lie between a user's line and the check.
_INSIDE = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


def number(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    below: float = math.inf,
) -> None:
    """Raise unless ``value`` is a finite number with low <= value <= high and value < below."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        finite = math.isfinite(value)
    except OverflowError:  # a whole number beyond floats
        finite = False
    if not finite:
        raise ValueError(f"{name} must be finite, got {value}")
    if value < low:
        raise ValueError(f"{name} must be at least {low:g}, got {value}")
    if value > high:
        raise ValueError(f"{name} must be at most {high:g}, got {value}")
    if value >= below:
        raise ValueError(f"{name} must be below {below:g}, got {value}")


def whole(name: str, value: object, low: int) -> None:
    """Raise unless ``value`` is an int of at least ``low``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")


def one_of(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def flag(name: str, value: object) -> None:
    """Raise unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")


def path(foreach: object, fused: object) -> None:
    """Raise unless the two settings choose one path through a step."""
    for name, value in (("foreach", foreach), ("fused", fused)):
        if value is not None:
            flag(name, value)
    if fused and foreach is not None:
        raise ValueError(f"foreach must be None where fused is True, got {foreach}")


def warn(message: str) -> None:
    """Warn at the user's line: the nearest frame outside of torch and of bandwise."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def not_captured(name: str) -> None:
    """Raise while a CUDA graph is captured. Its replays would repeat the numbers of one step."""
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(f"{name}.step cannot be captured in a CUDA graph: step outside of it")


def group(value: object) -> None:
    """Raise unless ``value`` can be a parameter group."""
    if not isinstance(value, dict):
        raise TypeError(f'param_group must be a dict such as {{"params": …}}, got {value!r}')
