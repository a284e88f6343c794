"""Logged values over steps: a mean line and a band over seeds for each optimizer."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, Literal

import plotly.graph_objects as go

from bandwise.figures.curve import Curve, Points, draw, ends, finite
from bandwise.figures.figure import Figure, blank, start_in
from bandwise.figures.report.differences import near
from bandwise.figures.report.text import goal, readable
from bandwise.figures.words import TIMES, headline, plural
from bandwise.study.results import Results

# The first part of training, where curves fall too steeply to see anything else.
_START = 0.2


def curves(results: Results, rows: Literal["evals", "training"], key: str) -> list[Curve]:
    """A logged value of every optimizer that has it."""
    found = []
    for index, row in enumerate(results.comparisons):
        whole: list[Points] = []
        broken: list[Points] = []
        for run in results.runs_of(row.optimizer):
            (broken if run.diverged else whole).append(logged(getattr(run, rows), key))
        found.append(Curve.across(index, row.optimizer, whole, broken))
    return [curve for curve in found if curve]


def logged(rows: Sequence[dict[str, float]], key: str) -> Points:
    """The logged values that are numbers, by step."""
    return finite((row["step"], row.get(key)) for row in rows)


def curve_figure(
    results: Results, rows: Literal["evals", "training"], key: str, small: bool = False
) -> Figure | None:
    """A logged value over steps: mean and band of each optimizer, diverged seeds apart."""
    drawn = curves(results, rows, key)
    if not drawn:
        return None
    plot = blank(height=300 if small else 440, labels=0 if small else len(drawn))
    for curve in drawn:
        draw(plot, curve, markers=rows == "evals")
    better = f" ({goal(results)})" if key == results.metric else ""
    plot.update_xaxes(title_text="step")
    plot.update_yaxes(title_text=html.escape(headline(readable(key)) + better))
    plot.update_layout(showlegend=not small)
    views = _views(results, drawn)
    start_in(plot, next(iter(views.values())))
    title = f"{headline(readable(key))}: {ends(drawn)}"
    if small:
        note = "Drawn as above; double-click to see the whole run."
        return Figure(f"{rows}-{key}", title, note, plot, small=True)
    seeds = max(curve.seeds for curve in drawn)
    note = f"Lines are means over {plural(seeds, 'seed')}, bands go from the lowest to the highest."
    if seeds <= 1:
        note = "One seed a line: how much of a gap is chance cannot be seen."
    if rows == "training":
        note += " Each point is the mean since the point before."
    if any(curve.broken for curve in drawn):
        title = "; ".join([title, *_lost(drawn)])
        note += f" Seeds that diverged are thin lines that end in {TIMES} and are in no mean."
    outside = [curve.name for curve in drawn if _outside(plot, curve)]
    if outside:
        note += f" Far from the others, so not in the first view: {', '.join(outside)}."
    return Figure(f"{rows}-{key}", title, note, plot, views)


def _views(results: Results, drawn: Sequence[Curve]) -> dict[str, dict[str, Any]]:
    """Parts of the figure worth a look. Axes that show the first steps hide the last ones."""
    end = results.steps
    close = [curve for curve in drawn if curve.index in near(results)]
    steps = [-0.01 * end, 1.02 * end]
    views: dict[str, dict[str, Any]] = {}
    for name, part, start, shown in (
        ("after the start", close, _START, steps),
        ("close-up of the end", close, 0.75, [0.74 * end, 1.01 * end]),
        # Diverged seeds are left out here too: what they reach would flatten the rest.
        ("whole run", drawn, 0.0, steps),
    ):
        values = _spread(part, start * end)
        if values:
            views[name] = {
                "xaxis.range": shown,
                "yaxis.type": "linear",
                # A change of type turns it on.
                "yaxis.autorange": False,
                "yaxis.range": values,
            }
    everything = {"xaxis.range": steps, "yaxis.autorange": True}
    if not views:
        views["whole run"] = everything | {"yaxis.type": "linear"}
    if all(value > 0 for curve in drawn for value in _everything(curve)):
        views["whole run, log scale"] = everything | {"yaxis.type": "log"}
    return views


def _everything(curve: Curve) -> list[float]:
    return curve.low + [value for _, values in curve.broken for value in values]


def _outside(plot: go.Figure, curve: Curve) -> bool:
    """Whether none of the curve lies within the y range that the figure starts with."""
    if plot.layout.yaxis.range is None or not curve.x:
        return False
    bottom, top = plot.layout.yaxis.range
    return not any(bottom <= value <= top for value in curve.mean)


def _spread(drawn: Sequence[Curve], start: float) -> list[float] | None:
    """The y range that holds every band from step ``start`` on; ``None`` if nothing is there."""
    values = [
        value
        for curve in drawn
        for step, *pair in zip(curve.x, curve.low, curve.high, strict=True)
        if step >= start
        for value in pair
    ]
    if not values or min(values) == max(values):
        return None
    margin = 0.05 * (max(values) - min(values))
    return [min(values) - margin, max(values) + margin]


def _lost(drawn: Sequence[Curve]) -> list[str]:
    """Which optimizers diverged, and how often."""
    return [
        f"{curve.name} diverged on {len(curve.broken)} of "
        f"{plural(curve.seeds + len(curve.broken), 'seed')}"
        for curve in drawn
        if curve.broken
    ]
