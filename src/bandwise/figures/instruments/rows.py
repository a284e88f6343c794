"""The rows that instruments draw: runs by label, and what is read from them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from bandwise.figures.curve import Points, finite
from bandwise.figures.words import number
from bandwise.lens.quantities.quantity import Row

# The rows of each run, by the label of what the run was trained with. A label without rows keeps
# its place, and with it the looks of the others.
Runs: TypeAlias = Mapping[str, Sequence[Sequence[Row]]]
Value: TypeAlias = Callable[[Row], float | None]

# The share of training in which moment estimates and warm-up settle.
_START = 0.2


def rows_of(rows: Sequence[Row], quantity: str) -> list[Row]:
    """The whole model's rows of a quantity."""
    return [row for row in rows if (row["quantity"], row["tensor"]) == (quantity, "all")]


def settled(rows: Sequence[Row]) -> list[Row]:
    """The rows of windows that began after the first fifth of training; the last if none did."""
    start = _START * rows[-1]["step"] if rows else 0
    return [row for row in rows if row["step"] - row["steps"] >= start] or list(rows[-1:])


def windows(rows: Sequence[Row]) -> list[Row]:
    """The settled rows of ``temporal`` for the whole model."""
    return settled(rows_of(rows, "temporal"))


SETTLED = "The mean over the windows that began after the first fifth of training."


def decibels(ratio: float | None) -> float | None:
    """20 log₁₀ of a ratio of amplitudes; ``None`` where there is no such."""
    return 20 * math.log10(ratio) if ratio is not None and ratio > 0 else None


def quotient(row: Row, above: str, below: str) -> float | None:
    """One figure over another, ``None`` where it is not defined."""
    top, bottom = row.get(above), row.get(below)
    return None if top is None or not bottom else top / bottom


def means(runs: Runs, value: Value, of: Callable[[Sequence[Row]], list[Row]]) -> dict[str, float]:
    """The mean over runs of a run's mean figure, over the rows that ``of`` picks, by label."""
    found = {}
    for label, some in runs.items():
        each = [list(finite((r["step"], value(r)) for r in of(rows)).values()) for rows in some]
        if any(each):
            found[label] = statistics.fmean(statistics.fmean(values) for values in each if values)
    return found


def averaged(curves: Sequence[Points]) -> Points:
    """The mean of curves where all of them have a value."""
    shared = [x for x in curves[0] if all(x in curve for curve in curves)] if curves else []
    return {x: statistics.fmean(curve[x] for curve in curves) for x in shared}


def compared(values: Mapping[str, float], form: str, unit: str = "") -> str:
    """The lowest and the highest of some values by label, in words."""
    low, high = min(values, key=lambda k: values[k]), max(values, key=lambda k: values[k])
    least, most = (f"{number(values[label], form)} {unit}".rstrip() for label in (low, high))
    if least == most:
        return f"{least} ({'all' if len(values) > 1 else low})"
    return f"from {least} ({low}) to {most} ({high})"
