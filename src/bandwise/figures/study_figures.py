"""The figures of a study, drawn from its results: differences, logged values, schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from bandwise.figures.curves import Curve, Points, curve_plot, curves_of, ends, finite
from bandwise.figures.figure import Figure, padded
from bandwise.figures.seed_differences import difference_figure, near, outside
from bandwise.figures.study_words import goal, readable
from bandwise.figures.words import TIMES, headline, number, plural
from bandwise.study.results import Results

# In this share of training curves fall too steeply to see anything else.
_START = 0.2

# The scheduled values that optimizers log: the axis, and what the value is.
_SCHEDULED = {
    "lr": ("Learning rate", "The step size that the optimizer was given."),
    "alpha": (
        "\N{GREEK SMALL LETTER ALPHA} of SMI",
        "The share of the filtered gradient in an SMI step: at 0 nothing is filtered, at 1 only "
        "the strong frequencies of the gradient are left.",
    ),
    "p": (
        "p of NSF",
        "The exponent of the second moment in an NSF step: ½ is Adam, 0 is momentum SGD, and below "
        "0 what Adam damps is amplified. A cycle shorter than the gap between two logged rows is "
        "not seen whole.",
    ),
}
_EVERY = "every optimizer"

Rows: TypeAlias = Literal["evals", "training"]


def study_figures(results: Results) -> list[Figure]:
    """Every figure that the results hold something for, the most telling first."""
    rows = [row for run in results.runs for row in run.evals]
    keys = dict.fromkeys(key for row in rows for key in row if key != "step")
    first, *others = sorted(keys, key=lambda key: key != results.metric) or [results.metric]
    drawn = [
        difference_figure(results),
        _logged_figure(results, "evals", first),
        _logged_figure(results, "training", "train_loss"),
        *(_logged_figure(results, "evals", key, small=True) for key in others),
        *(_schedule_figure(results, key) for key in _SCHEDULED),
    ]
    return [figure for figure in drawn if figure is not None]


def logged_curves(results: Results, rows: Rows, key: str) -> list[Curve]:
    """A logged value of every optimizer that has it."""
    runs = {row.optimizer: results.runs_of(row.optimizer) for row in results.comparisons}
    return curves_of(runs, lambda run: _logged(getattr(run, rows), key), lambda run: run.diverged)


def _logged(rows: Sequence[dict[str, float]], key: str) -> Points:
    return finite((row["step"], row.get(key, math.nan)) for row in rows)


def _logged_figure(results: Results, rows: Rows, key: str, small: bool = False) -> Figure | None:
    """A logged value over steps: mean and band of each optimizer, diverged seeds apart."""
    drawn = logged_curves(results, rows, key)
    if not drawn:
        return None
    name = headline(readable(key))
    plot = curve_plot(
        drawn,
        x="step",
        y=f"{name} ({goal(results)})" if key == results.metric else name,
        height=300 if small else 440,
        legend=not small,
        markers=rows == "evals",
    )
    title, views = f"{name}: {ends(drawn)}", _views(results, drawn)
    start, first = next(iter(views.items()))
    if small:
        note = "Drawn as above; double-click to see the whole run."
        return Figure(f"{rows}-{key}", title, note, plot, {start: first}, small=True)
    seeds = max(curve.seeds for curve in drawn)
    note = f"Lines are means over {plural(seeds, 'seed')}, bands go from the lowest to the highest."
    if seeds <= 1:
        note = "Each line is one seed: how much of a gap is chance cannot be seen."
    if rows == "training":
        note += " Each point is the mean since the point before."
    if lost := [f"{curve.name} diverged on {curve.lost}" for curve in drawn if curve.lost]:
        title = "; ".join([title, *lost])
        note += f" Seeds that diverged are thin lines that end in {TIMES} and are in no mean."
    low, high = first.get("yaxis.range", (-math.inf, math.inf))
    seen = {curve.name for curve in drawn if any(low <= value <= high for value in curve.mean)}
    far = [curve.name for curve in drawn if curve.x and curve.name not in seen]
    return Figure(f"{rows}-{key}", title, note + outside(far), plot, views)


def _views(results: Results, drawn: Sequence[Curve]) -> dict[str, dict[str, Any]]:
    """Parts of the figure worth a look: axes that show the first steps hide the last ones."""
    end, close = results.steps, near(results)
    steps = [-0.01 * end, 1.02 * end]
    parts = {
        "after the start": (close, _START, steps),
        "close-up of the end": (close, 0.75, [0.74 * end, 1.01 * end]),
        "whole run": ({curve.name for curve in drawn}, 0.0, steps),
    }
    views: dict[str, dict[str, Any]] = {}
    for name, (names, start, shown) in parts.items():
        # What diverged seeds reach would flatten the rest, so the views ignore them.
        values = [v for curve in drawn if curve.name in names for v in curve.reach(start * end)]
        if values and min(values) < max(values):
            # A change of type turns autorange on, so it is turned off again.
            axis = {"yaxis.type": "linear", "yaxis.autorange": False}
            views[name] = {"xaxis.range": shown, **axis, "yaxis.range": padded(values, 0.05)}
    everything = {"xaxis.range": steps, "yaxis.autorange": True}
    if not views:
        views["whole run"] = everything | {"yaxis.type": "linear"}
    values = [v for curve in drawn for points in curve.broken for v in points.values()]
    if min([*values, *(v for curve in drawn for v in curve.reach())]) > 0:
        views["whole run, log scale"] = everything | {"yaxis.type": "log"}
    return views


def _schedule_figure(results: Results, key: str) -> Figure | None:
    """A scheduled value over steps; one line if every optimizer has the same schedule."""
    # A schedule depends on the step alone: the run that went furthest shows all of it.
    furthest = {
        row.optimizer: [max(results.runs_of(row.optimizer), key=lambda run: len(run.training))]
        for row in results.comparisons
    }
    drawn = curves_of(furthest, lambda run: _logged(run.training, key))
    if not drawn:
        return None
    longest = max(drawn, key=lambda curve: len(curve.x))
    same = len(drawn) == len(results.comparisons) > 1 and all(
        curve.mean == longest.mean[: len(curve.x)] for curve in drawn
    )
    if same:
        drawn = [replace(longest, index=0, name=_EVERY)]
    what, note = _SCHEDULED[key]
    plot = curve_plot(drawn, x="step", y=what, height=300, markers=False)
    if same:
        # The line is grey as the baseline is. Hiding the baseline must not hide it.
        plot.update_traces(legendgroup=_EVERY)
    plot.update_xaxes(range=[-0.01 * results.steps, 1.02 * results.steps])
    seen = "; ".join(f"{curve.name} {_path(curve.mean)}" for curve in drawn)
    if len(drawn) > 3:
        values = [value for curve in drawn for value in curve.mean]
        seen = f"{len(drawn)} optimizers between {number(min(values))} and {number(max(values))}"
    return Figure(f"schedule-{key}", f"{what}: {seen}", note, plot, small=True)


def _path(values: list[float]) -> str:
    """How a schedule runs, in words."""
    low, high, last = (number(value) for value in (min(values), max(values), values[-1]))
    peak = values.index(max(values))
    rise, fall = values[: peak + 1], values[peak:]
    if low == high:
        return f"stays at {low}"
    if values == sorted(values):
        return f"rises from {low} to {high}"
    if values == sorted(values, reverse=True):
        return f"falls from {high} to {low}"
    if rise == sorted(rise) and fall == sorted(fall, reverse=True):
        return f"rises to {high}, then falls to {last}"
    return f"goes back and forth between {low} and {high}"
