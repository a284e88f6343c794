"""Logged values over steps: a mean line and a band over seeds for each optimizer."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import plotly.graph_objects as go

from bandwise.report.differences import near
from bandwise.report.drawing import Figure, blank, line, start_in, transparent
from bandwise.report.text import TIMES, goal, headline, plural, readable
from bandwise.study.results import Results

# The first part of training, where curves fall too steeply to see anything else.
_START = 0.2


@dataclass(frozen=True)
class Curve:
    """A logged value of one optimizer over steps, across its seeds.

    Seeds that diverged stand apart in ``broken``. Mixed into the mean, it would jump where they
    stop.

    Attributes:
        index: the optimizer's row in ``Results.comparisons``.
        name: its label.
        seeds: how many seeds ``mean``, ``low`` and ``high`` are over.
        steps: where each of those seeds has a finite value.
        mean, low, high: over seeds, at each step.
        broken: finite values of each diverged seed: its steps, and the values.
    """

    index: int
    name: str
    seeds: int
    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    broken: list[tuple[list[float], list[float]]]


def curves(results: Results, rows: Literal["evals", "training"], key: str) -> list[Curve]:
    """A logged value of every optimizer that has it."""
    found = []
    for index, row in enumerate(results.comparisons):
        whole: list[dict[float, float]] = []
        broken: list[tuple[list[float], list[float]]] = []
        for run in results.runs_of(row.optimizer):
            values = finite(getattr(run, rows), key)
            if run.diverged:
                broken.append((list(values), list(values.values())))
            else:
                whole.append(values)
        shared = [step for step in whole[0] if all(step in v for v in whole)] if whole else []
        columns = [[values[step] for values in whole] for step in shared]
        curve = Curve(
            index=index,
            name=row.optimizer,
            seeds=len(whole),
            steps=shared,
            mean=[statistics.fmean(column) for column in columns],
            low=[min(column) for column in columns],
            high=[max(column) for column in columns],
            broken=broken,
        )
        if curve.steps or any(steps for steps, _ in broken):
            found.append(curve)
    return found


def finite(rows: Sequence[dict[str, float]], key: str) -> dict[float, float]:
    """The logged values that are numbers, by step."""
    return {row["step"]: row[key] for row in rows if math.isfinite(row.get(key, math.nan))}


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
    title = f"{headline(readable(key))}: {_seen(drawn)}"
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


def draw(plot: go.Figure, curve: Curve, markers: bool) -> None:
    """The optimizer's band, mean line and diverged seeds, which one click in the legend toggles."""
    style = line(curve.index)
    name = html.escape(curve.name)
    if curve.broken:
        runs = curve.seeds + len(curve.broken)
        name += f" ({len(curve.broken)} of {plural(runs, 'seed')} diverged)"
    group = {"name": name, "legendgroup": str(curve.index)}
    if curve.seeds > 1:
        plot.add_scatter(
            x=curve.steps + curve.steps[::-1],
            y=curve.high + curve.low[::-1],
            fill="toself",
            fillcolor=transparent(style.colour),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
            meta="band",
            **group,
        )
    between = " (%{customdata[0]:.5~g} to %{customdata[1]:.5~g})" if curve.seeds > 1 else ""
    if curve.steps:
        plot.add_scatter(
            x=curve.steps,
            y=curve.mean,
            customdata=[list(pair) for pair in zip(curve.low, curve.high, strict=True)],
            mode="lines+markers" if markers and len(curve.steps) <= 60 else "lines",
            line={"color": style.colour, "dash": style.dash, "width": style.width},
            marker={"size": 5},
            hovertemplate=f"%{{y:.5~g}}{between}",
            meta="mean",
            **group,
        )
    for i, (steps, values) in enumerate(curve.broken):
        plot.add_scatter(
            x=steps,
            y=values,
            mode="lines+markers",
            line={"color": style.colour, "dash": style.dash, "width": 1},
            # The last value before the divergence alone is marked.
            marker={"symbol": "x", "size": [0] * (len(steps) - 1) + [10]},
            hovertemplate="%{y:.5~g}, diverged later",
            showlegend=not curve.steps and i == 0,
            meta="diverged",
            **group,
        )


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
    if plot.layout.yaxis.range is None or not curve.steps:
        return False
    bottom, top = plot.layout.yaxis.range
    return not any(bottom <= value <= top for value in curve.mean)


def _spread(drawn: Sequence[Curve], start: float) -> list[float] | None:
    """The y range that holds every band from step ``start`` on; ``None`` if nothing is there."""
    values = [
        value
        for curve in drawn
        for step, *pair in zip(curve.steps, curve.low, curve.high, strict=True)
        if step >= start
        for value in pair
    ]
    if not values or min(values) == max(values):
        return None
    margin = 0.05 * (max(values) - min(values))
    return [min(values) - margin, max(values) + margin]


def _seen(drawn: Sequence[Curve]) -> str:
    """How the curves end, in words."""
    ends = sorted((curve.mean[-1], curve.name) for curve in drawn if curve.steps)
    if not ends:
        return "every run diverged"
    (low, lowest), (high, highest) = ends[0], ends[-1]
    if len(ends) == 1:
        first = next(curve for curve in drawn if curve.steps).mean[0]
        return f"{lowest} goes from {first:.4g} to {low:.4g}"
    if low == high:
        return f"all end at {low:.4g}"
    return f"{lowest} ends lowest ({low:.4g}), {highest} highest ({high:.4g})"


def _lost(drawn: Sequence[Curve]) -> list[str]:
    """Which optimizers diverged, and how often."""
    return [
        f"{curve.name} diverged on {len(curve.broken)} of "
        f"{plural(curve.seeds + len(curve.broken), 'seed')}"
        for curve in drawn
        if curve.broken
    ]
