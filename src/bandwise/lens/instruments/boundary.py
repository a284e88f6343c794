"""The decision boundary of tasks in the plane, step by step."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from bandwise.drawing.figure import Figure, Line, blank, line, transparent, wrapped
from bandwise.lens.instruments.rows import Runs, rows_of
from bandwise.lens.quantity import Row

_COLUMNS = 6
_SIDE = 140


def boundary(runs: Runs) -> Figure | None:
    """Small multiples, a row for each label and a column for each step: its first run's grids."""
    grids = {
        (index, label): {row["step"]: row for row in found}
        for index, (label, some) in enumerate(runs.items())
        if (found := next(filter(None, (rows_of(rows, "boundary") for rows in some)), None))
    }
    if not grids:
        return None
    stored = sorted({step for grid in grids.values() for step in grid})
    steps = _spread(stored, _COLUMNS)
    plot = blank(height=60 + _SIDE * len(grids), labels=0)
    plot.set_subplots(
        rows=len(grids),
        cols=len(steps),
        column_titles=[f"step {step:,}" for step in steps],
        horizontal_spacing=0.015,
        vertical_spacing=0.1 / len(grids),
    )
    for place, ((index, label), grid) in enumerate(grids.items(), start=1):
        for column, step in enumerate(steps, start=1):
            if step in grid:
                plot.add_trace(_contour(grid[step], line(index)), row=place, col=column)
        plot.update_yaxes(title_text="<br>".join(wrapped(label, 20)), row=place, col=1)
    plot.update_xaxes(showticklabels=False, showgrid=False, ticks="", fixedrange=True)
    plot.update_yaxes(showticklabels=False, showgrid=False, ticks="", fixedrange=True)
    plot.update_layout(
        width=70 + _SIDE * len(steps), margin={"t": 32}, showlegend=False, hovermode="closest"
    )
    left_out = f", {len(steps)} of {len(stored)} stored steps" if len(steps) < len(stored) else ""
    return Figure(
        "lens-boundary",
        f"The decision boundary from step {steps[0]:,} to step {steps[-1]:,}",
        "The line is where the classifier is undecided; the tinted side is class 1. One row an "
        f"optimizer, its first seed{left_out}. A boundary that is in place early and hardly moves "
        "later was aligned early.",
        plot,
    )


def _contour(row: Row, style: Line) -> go.Contour:
    n = row["n"]
    (left, right), (bottom, top) = row["x"], row["y"]
    return go.Contour(
        z=[row["values"][i * n : (i + 1) * n] for i in range(n)],
        x0=left,
        dx=(right - left) / (n - 1),
        y0=bottom,
        dy=(top - bottom) / (n - 1),
        contours={"type": "constraint", "operation": ">", "value": 0},
        fillcolor=transparent(style.colour, 0.25),
        line={"color": style.colour, "width": 2},
        showlegend=False,
        hoverinfo="skip",
    )


def _spread(steps: Sequence[int], most: int) -> list[int]:
    """At most so many of the steps, evenly among them, the first and the last included."""
    if len(steps) <= most:
        return list(steps)
    return [steps[round(i * (len(steps) - 1) / (most - 1))] for i in range(most)]
