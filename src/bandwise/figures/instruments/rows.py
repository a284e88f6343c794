"""What instruments read from the rows of lens logs.

A user may record any figure under any name, so every figure is checked when it is read: what is
no number counts as not measured.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from bandwise.figures.curves import Points, finite
from bandwise.lens import Row

# The rows of each run, by the label of what the run was trained with. A label without rows keeps
# its place, so that the others keep their looks.
Runs: TypeAlias = Mapping[str, Sequence[Sequence[Row]]]
Value: TypeAlias = Callable[[Row], float | None]

# Moment estimates and warm-up settle in this share of training.
_START = 0.2
SETTLED = "The mean over the windows that began after the first fifth of training."


def scalar(row: Row, key: str) -> float | None:
    """A figure that is a finite number; ``None`` if the row has no such figure."""
    return _number(row.get(key))


def scalars(row: Row, key: str) -> list[float | None]:
    """A figure that is a list, each value as ``scalar`` reads it."""
    values = row.get(key)
    return [_number(value) for value in values] if isinstance(values, list) else []


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


def figure(key: str) -> Value:
    """Reads one figure."""
    return lambda row: scalar(row, key)


def ratio(above: str, below: str) -> Value:
    """Reads one figure over another; ``None`` where it is not defined."""

    def read(row: Row) -> float | None:
        top, bottom = scalar(row, above), scalar(row, below)
        return None if top is None or not bottom else top / bottom

    return read


def ratio_in_decibels(above: str, below: str) -> Value:
    """Reads one amplitude over another, in decibels."""
    read = ratio(above, below)
    return lambda row: decibels(read(row))


def decibels(amplitude: float | None) -> float | None:
    """20 log₁₀ of a ratio of amplitudes; ``None`` where it is not defined."""
    return 20 * math.log10(amplitude) if amplitude is not None and amplitude > 0 else None


def rows_of(rows: Sequence[Row], quantity: str) -> list[Row]:
    """The whole model's rows of a quantity."""
    return [row for row in rows if (row["quantity"], row["tensor"]) == (quantity, "all")]


def last_of(rows: Sequence[Row], quantity: str) -> list[Row]:
    """The whole model's last row of a quantity, if there is one."""
    return rows_of(rows, quantity)[-1:]


def windows(rows: Sequence[Row], tensor: str = "all") -> list[Row]:
    """The rows of ``temporal`` whose windows began after the first fifth of training.

    It is the last row if no window began so late.
    """
    found = [row for row in rows if (row["quantity"], row["tensor"]) == ("temporal", tensor)]
    start = _START * found[-1]["step"] if found else 0
    late = [row for row in found if row["step"] - (scalar(row, "steps") or 0) >= start]
    return late or found[-1:]


def averaged(curves: Sequence[Points]) -> Points:
    """The mean of the curves that have points, where all of them have a value."""
    curves = [curve for curve in curves if curve]
    shared = [x for x in curves[0] if all(x in curve for curve in curves)] if curves else []
    return {x: statistics.fmean(curve[x] for curve in curves) for x in shared}


def means(runs: Runs, value: Value, of: Callable[[Sequence[Row]], list[Row]]) -> dict[str, float]:
    """By label, the mean over runs of a run's mean value, over the rows that ``of`` picks."""
    found = {}
    for label, some in runs.items():
        each = [list(finite(enumerate(map(value, of(rows)))).values()) for rows in some]
        if any(each):
            found[label] = statistics.fmean(statistics.fmean(values) for values in each if values)
    return found
