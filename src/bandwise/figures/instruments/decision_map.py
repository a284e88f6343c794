"""The decision boundary of tasks in the plane, step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import plotly.graph_objects as go

from bandwise.figures.figure import BASELINE, Figure, Line, blank, line, plotly_text, transparent
from bandwise.figures.instruments.rows import Runs, first_runs, rows_of, scalars
from bandwise.figures.words import lowest_to_highest
from bandwise.lens import Row

_COLUMNS = 6
_SIDE = 140  # in pixels


def decision_map(runs: Runs) -> Figure | None:
    """The boundaries of each label's first run: for each label a row, for each step a column."""
    grids = first_runs(runs, _grids)
    if not grids:
        return None
    stored = sorted({step for grid in grids.values() for step in grid})
    columns = min(_COLUMNS, len(stored))
    steps = [stored[round(i * (len(stored) - 1) / max(columns - 1, 1))] for i in range(columns)]
    plot = blank(
        height=60 + _SIDE * len(grids),
        labels=0,
        rows=len(grids),
        cols=len(steps),
        column_titles=[f"step {step:,}" for step in steps],
        horizontal_spacing=0.015,
        vertical_spacing=0.1 / len(grids),
    )
    for place, (label, grid) in enumerate(grids.items(), start=1):
        style = line(list(runs).index(label))
        for column, step in enumerate(steps, start=1):
            if step in grid:
                plot.add_trace(_contour(grid[step], style), row=place, col=column)
        plot.update_yaxes(title_text=plotly_text(label, 20), row=place, col=1)
    bare = {"showticklabels": False, "showgrid": False, "ticks": "", "fixedrange": True}
    frame = {"showline": True, "mirror": True, "linecolor": BASELINE}
    plot.update_xaxes(**bare, **frame)
    plot.update_yaxes(**bare, **frame)
    plot.update_layout(
        width=70 + _SIDE * len(steps), margin={"t": 32}, showlegend=False, hovermode="closest"
    )
    left_out = f", {len(steps)} of {len(stored)} stored steps" if len(steps) < len(stored) else ""
    return Figure(
        "lens-boundary",
        _settled(grids, steps),
        "The line is where the classifier is undecided; the tinted side is class 1. Each row is an "
        f"optimizer, its first seed{left_out}. A boundary that is in place early and hardly moves "
        "later was aligned early.",
        plot,
    )


def _grids(rows: Sequence[Row]) -> dict[int, Row]:
    """The grids by step. A model that is not finite has none."""
    return {row["step"]: row for row in rows_of(rows, "boundary") if _is_grid(row)}


def _is_grid(row: Row) -> bool:
    values, x, y = (scalars(row, key) for key in ("values", "x", "y"))
    n = row.get("n")
    square = isinstance(n, int) and n > 1 and len(values) == n * n and len(x) == len(y) == 2
    return square and all(map(math.isfinite, (*values, *x, *y)))


def _contour(row: Row, style: Line) -> go.Contour:
    n = row["n"]
    (left, right), (bottom, top) = row["x"], row["y"]
    return go.Contour(
        z=[row["values"][i * n : (i + 1) * n] for i in range(n)],
        x0=left,
        dx=(right - left) / (n - 1),
        y0=bottom,
        dy=(top - bottom) / (n - 1),
        # One level makes two colours: none below it, a tint above.
        contours={"start": 0, "end": 0, "size": 1, "coloring": "fill"},
        colorscale=[[0, "rgba(0,0,0,0)"], [1, transparent(style.colour, 0.25)]],
        showscale=False,
        line={"color": style.colour, "width": 2},
        hoverinfo="skip",
    )


def _settled(grids: Mapping[str, Mapping[int, Row]], steps: Sequence[int]) -> str:
    """How much of the plane had its final class at the second step drawn, in words."""
    if len(steps) < 3:
        return f"The decision boundary at step {steps[-1]:,}"
    found = {}
    for label, grid in grids.items():
        then, last = (grid.get(step, {}).get("values", []) for step in (steps[1], max(grid)))
        if len(then) == len(last):
            found[label] = fmean((a > 0) == (b > 0) for a, b in zip(then, last, strict=True))
    shares = f"{lowest_to_highest(found, '.0%')} of the plane" if found else "the boundary"
    return f"At step {steps[1]:,}, {shares} is in its final class"
