"""What instruments share: runs by label, and how rows of them become curves."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from bandwise.drawing.curve import Curve, Points, draw, ends, finite
from bandwise.drawing.figure import Figure, blank
from bandwise.drawing.words import number
from bandwise.lens.quantity import Row

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


def over_steps(runs: Runs, quantity: str, value: Value) -> list[Curve]:
    """A figure of the whole model over steps, for every label that has it."""
    found = []
    for index, (label, some) in enumerate(runs.items()):
        seeds = [finite((r["step"], value(r)) for r in rows_of(rows, quantity)) for rows in some]
        found.append(Curve.across(index, label, [points for points in seeds if points]))
    return [curve for curve in found if curve]


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
    """The highest and the lowest of some values, in words."""
    low, high = min(values, key=lambda k: values[k]), max(values, key=lambda k: values[k])
    unit = f" {unit}" if unit else ""
    if low == high:
        return f"{number(values[low], form)}{unit} ({low})"
    return (
        f"from {number(values[low], form)}{unit} ({low}) to {number(values[high], form)}{unit} "
        f"({high})"
    )


def curve_figure(
    name: str,
    drawn: Sequence[Curve],
    *,
    title: str,
    note: str,
    y: str,
    x: str = "step",
    references: Mapping[str, float] | None = None,
    small: bool = True,
) -> Figure | None:
    """Curves as a figure, with dotted lines at the named references; ``None`` without curves.

    Positive values that span more than two powers of ten get a logarithmic axis.
    """
    if not drawn:
        return None
    plot = blank(height=300 if small else 400, labels=len(drawn))
    for curve in drawn:
        draw(plot, curve, markers=True)
    for words, value in (references or {}).items():
        plot.add_hline(
            y=value,
            line={"color": "#808890", "dash": "dot", "width": 1.5},
            annotation={"text": words, "font": {"size": 11}},
            annotation_position="top left",
            layer="below",
        )
    plot.update_xaxes(title_text=x)
    plot.update_yaxes(title_text=y)
    values = [value for curve in drawn for value in (*curve.low, *curve.high)]
    if min(values) > 0 and max(values) > 100 * min(values):
        plot.update_yaxes(type="log", dtick=1)
    return Figure(f"lens-{name}", title, note, plot, small=small)


def series(
    name: str,
    runs: Runs,
    quantity: str,
    value: Value,
    what: str,
    *,
    note: str,
    y: str,
    form: str = ".4g",
    references: Mapping[str, float] | None = None,
) -> Figure | None:
    """A figure of the whole model over steps, as a small figure; ``form`` is its title's."""
    drawn = over_steps(runs, quantity, value)
    title = f"{what}: {ends(drawn, form)}"
    return curve_figure(name, drawn, title=title, note=note, y=y, references=references)
