"""What instruments read from the rows of lens logs.

A user may record any figure under any name, so every figure is checked when it is read: what is
no finite number is NaN, and NaN is not drawn.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeAlias, TypeVar

from bandwise.figures.curves import Points, shared
from bandwise.lens import Row

# The rows of each run, by the label of what the run was trained with. A label without rows keeps
# its place, so that the others keep their looks.
Runs: TypeAlias = Mapping[str, Sequence[Sequence[Row]]]
_T = TypeVar("_T")

# Moment estimates and warm-up settle in this share of training.
_START = 0.2
SETTLED = "The mean over the windows that began after the first fifth of training."


def scalar(row: Row, key: str) -> float:
    """A figure that is a number."""
    return _number(row.get(key))


def scalars(row: Row, key: str) -> list[float]:
    """A figure that is a list of numbers."""
    values = row.get(key)
    return list(map(_number, values)) if isinstance(values, list) else []


def _number(value: Any) -> float:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if known and math.isfinite(value) else math.nan


@dataclass(frozen=True)
class Value:
    """Reads a figure from a row, or its ratio to another one, which may be in decibels."""

    key: str
    over: str | None = None
    decibels: bool = False

    def __call__(self, row: Row) -> float:
        """The value; NaN where it is not defined."""
        below = scalar(row, self.over) if self.over else 1
        value = scalar(row, self.key) / below if below else math.nan
        return decibels(value) if self.decibels else value


def decibels(amplitude: float) -> float:
    """20 log₁₀ of a ratio of amplitudes."""
    return 20 * math.log10(amplitude) if amplitude > 0 else math.nan


def known(value: Value, rows: Sequence[Row]) -> list[float]:
    """A value of the rows that have it."""
    return [at for at in map(value, rows) if math.isfinite(at)]


def rows_of(rows: Sequence[Row], quantity: str, tensor: str = "all") -> list[Row]:
    """The rows of a quantity, of the whole model or of a tensor."""
    return [row for row in rows if (row["quantity"], row["tensor"]) == (quantity, tensor)]


def last_of(rows: Sequence[Row], quantity: str) -> list[Row]:
    """The whole model's last row of a quantity, if there is one."""
    return rows_of(rows, quantity)[-1:]


def windows(rows: Sequence[Row], tensor: str = "all") -> list[Row]:
    """The rows of ``temporal`` whose windows began after the first fifth of training.

    It is the last row if no window began so late.
    """
    found = rows_of(rows, "temporal", tensor)
    start = _START * found[-1]["step"] if found else 0
    late = [row for row in found if row["step"] - sum(known(Value("steps"), [row])) >= start]
    return late or found[-1:]


def averaged(curves: Sequence[Points]) -> Points:
    """The mean of the curves that have points, where all of them have a value."""
    return {x: fmean(values) for x, values in shared(list(filter(None, curves))).items()}


def means(runs: Runs, value: Value, of: Callable[[Sequence[Row]], list[Row]]) -> dict[str, float]:
    """By label, the mean over runs of a run's mean value, over the rows that ``of`` picks."""
    found = {
        label: [fmean(each) for rows in some if (each := known(value, of(rows)))]
        for label, some in runs.items()
    }
    return {label: fmean(some) for label, some in found.items() if some}


def first_runs(runs: Runs, read: Callable[[Sequence[Row]], _T]) -> dict[str, _T]:
    """By label, what is read from its first run that holds something."""
    found = {label: list(filter(None, map(read, some))) for label, some in runs.items()}
    return {label: some[0] for label, some in found.items() if some}
