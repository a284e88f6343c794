"""Schedules: numbers that depend on the step.

A schedule is a frozen object, a pure function of the step and of the run's length. It holds no
state, so an optimizer may keep it in a parameter group and a checkpoint holds it as plain data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from bandwise.optim import _checks

Shape = Literal["cosine", "triangular", "sawtooth", "square"]

SCHEDULES: dict[str, type[Schedule]] = {}


@dataclass(frozen=True)
class Schedule:
    """The base of all schedules: call one with a step to get its value there.

    A schedule of your own is a subclass: a frozen dataclass with ``__call__`` and ``bounds``. A
    checkpoint holds its name and its fields, so import the class before you load the checkpoint.
    """

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type == "float":
                _checks.number(f"{type(self).__name__}'s {field.name}", getattr(self, field.name))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register the class under its name, which checkpoints hold."""
        super().__init_subclass__(**kwargs)
        if cls.__name__.startswith("_"):
            return
        taken = SCHEDULES.get(cls.__name__)
        if taken is not None and taken.__module__ == __name__:
            raise TypeError(
                f"bandwise has a schedule named {cls.__name__}: give yours another name"
            )
        SCHEDULES[cls.__name__] = cls

    def __call__(self, step: int, total_steps: int | None = None) -> float:
        """The value at ``step``, counted from 1 by the optimizers, of a run of ``total_steps``."""
        raise NotImplementedError

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value it takes."""
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """The same ``value`` at every step."""

    value: float

    def __call__(self, step: int, total_steps: int | None = None) -> float:
        return self.value

    @property
    def bounds(self) -> tuple[float, float]:
        return self.value, self.value


@dataclass(frozen=True)
class _Ramp(Schedule):
    """From ``start`` to ``end`` over the run, and ``end`` from then on."""

    start: float
    end: float

    def __call__(self, step: int, total_steps: int | None = None) -> float:
        if total_steps is None:
            raise ValueError(f"{self} runs over the whole training: it needs total_steps")
        weight = self._weight(min(step / total_steps, 1.0))
        return _between(self.start, self.end, weight)

    def _weight(self, progress: float) -> float:
        raise NotImplementedError

    @property
    def bounds(self) -> tuple[float, float]:
        return min(self.start, self.end), max(self.start, self.end)


@dataclass(frozen=True)
class Linear(_Ramp):
    """A straight line over the run: a + (b - a) t/T (SMI, equation 16).

    Args:
        start: a, the value that step 0 would have.
        end: b, the value at step T = ``total_steps`` and after it.
    """

    def _weight(self, progress: float) -> float:
        return progress


@dataclass(frozen=True)
class Cosine(_Ramp):
    """Half a cosine over the run: a + (b - a) (1 - cos(π t/T))/2 (SMI, equation 17).

    Args:
        start: a, the value that step 0 would have.
        end: b, the value at step T = ``total_steps`` and after it.
    """

    def _weight(self, progress: float) -> float:
        return (1 - math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Cyclic(Schedule):
    """Back and forth between ``high`` and ``low``, for as long as training lasts.

    Args:
        high: the value at the start of every cycle.
        low: the other extreme.
        period: steps in a cycle, at least 2.
        shape: ``"cosine"`` and ``"triangular"`` go down in the first half of a cycle and up in
            the second. ``"sawtooth"`` goes down all the way and jumps back. ``"square"`` is
            ``high`` for half a cycle, then ``low`` for half.
    """

    high: float
    low: float
    period: int
    shape: Shape = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        _checks.whole("Cyclic's period", self.period, low=2)
        _checks.one_of("Cyclic's shape", self.shape, get_args(Shape))

    def __call__(self, step: int, total_steps: int | None = None) -> float:
        return _between(self.low, self.high, self._height(step % self.period / self.period))

    def _height(self, phase: float) -> float:
        match self.shape:
            case "cosine":
                return (1 + math.cos(2 * math.pi * phase)) / 2
            case "triangular":
                return abs(1 - 2 * phase)
            case "sawtooth":
                return 1 - phase
            case "square":
                return 1.0 if phase < 0.5 else 0.0

    @property
    def bounds(self) -> tuple[float, float]:
        return min(self.high, self.low), max(self.high, self.low)


def _between(a: float, b: float, weight: float) -> float:
    """``a`` at weight 0 and ``b`` at weight 1, exactly: a + (b - a) may round to another number."""
    return a + (b - a) * weight if weight < 0.5 else b - (b - a) * (1 - weight)


def value_at(value: float | Schedule, step: int, total_steps: int | None) -> float:
    """The value of a setting at a step: the number itself, or what the schedule says."""
    return value(step, total_steps) if isinstance(value, Schedule) else value


def check(
    name: str,
    value: float | Schedule,
    total_steps: int | None,
    low: float = -math.inf,
    high: float = math.inf,
) -> None:
    """Raise unless a setting is a number or a schedule, stays within [low, high] and has the
    ``total_steps`` that it needs."""
    if total_steps is not None:
        _checks.whole("total_steps", total_steps, low=1)
    if not isinstance(value, Schedule):
        if not isinstance(value, (int, float)):
            raise TypeError(
                f"{name} must be a number or a schedule such as Cosine(0.1, 0.5), got {value!r}"
            )
        _checks.number(name, value, low, high)
        return
    value(1, total_steps)
    smallest, largest = value.bounds
    if smallest < low or largest > high:
        raise ValueError(f"{name} must stay within [{low:g}, {high:g}], got {value}")
