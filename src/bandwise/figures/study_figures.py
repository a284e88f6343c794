"""The figures of a study, drawn from its results: differences, logged values, schedules."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from bandwise.figures.curves import Curve, Points, curve_plot, curves_of, ends, finite
from bandwise.figures.dots import Dots, dot_plot
from bandwise.figures.figure import Figure, padded
from bandwise.figures.study_words import Decimals, baseline, goal, readable
from bandwise.figures.words import TIMES, headline, number, plural
from bandwise.study.paired import last_values
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
    keys = dict.fromkeys(key for run in results.runs for row in run.evals for key in row)
    others = [key for key in keys if key not in ("step", results.metric)]
    drawn = [
        _difference_figure(results),
        _logged_figure(results, "evals", results.metric),
        _logged_figure(results, "training", "train_loss"),
        *(_logged_figure(results, "evals", key, small=True) for key in others),
        *(_schedule_figure(results, key) for key in _SCHEDULED),
    ]
    return [figure for figure in drawn if figure]


def _difference_figure(results: Results) -> Figure | None:
    """Each seed's difference from the baseline, with the mean and its interval."""
    found = differences(results)
    if not any(found.values()):
        return None
    base, decimals, dots = baseline(results).optimizer, Decimals.of(results), []
    reached = {base: [0.0]}
    for index, row in enumerate(results.comparisons[1:], 1):
        seeds = found[row.optimizer]
        values = [(f"seed {seed}: {decimals.signed(at)}", at) for seed, at in seeds.items()]
        mean = None if row.interval is None else row.difference
        words = f"mean {decimals.signed(mean)}, 95% {decimals.interval(row)}"
        dots.append(Dots(index, row.optimizer, values, mean, row.interval, words))
        reached[row.optimizer] = [*seeds.values(), *(row.interval or ())]
    what = f"{headline(readable(results.metric))}: difference from {base}"
    plot = dot_plot(dots, what, {"baseline": 0})
    left, right = ("better", "worse") if results.direction == "min" else ("worse", "better")
    top = {"xref": "paper", "yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False}
    plot.add_annotation(x=0, xanchor="left", text=f"← {left}", yshift=20, **top)
    plot.add_annotation(x=1, xanchor="right", text=f"{right} →", yshift=20, **top)
    note = "Dots are seeds; the diamond is their mean, the bar its 95% t-interval."
    if len(results.seeds) == 1:
        note = "Each optimizer has one dot, from one seed: a gap of any size may be chance."
    if missing := sum(len(results.seeds) - len(seeds) for seeds in found.values()):
        note += f" Not drawn: {plural(missing, 'run')} without a finite difference."
    close = _near(results)
    far = [name for name, seeds in found.items() if seeds and name not in close]
    views = {"close to the baseline": close, "all": set(reached)} if far else {"all": set(reached)}
    ranges = {
        view: {"xaxis.range": padded([at for name in names for at in reached[name]], 0.08)}
        for view, names in views.items()
    }
    title = f"Seed by seed: {_counted(results, found)}"
    return Figure("differences", title, note + _outside(far), plot, ranges)


def differences(results: Results) -> dict[str, dict[int, float]]:
    """Each optimizer's differences from the baseline by seed, where both ended with a figure."""
    base, *others = (
        last_values(results.runs_of(row.optimizer), results.metric) for row in results.comparisons
    )
    return {
        row.optimizer: {
            seed: value
            for seed, value in zip(results.seeds, ours.minus(base).values, strict=True)
            if value is not None
        }
        for row, ours in zip(results.comparisons[1:], others, strict=True)
    }


def _near(results: Results) -> set[str]:
    """The baseline, and who is within ten times the median optimizer's distance from it.

    One optimizer that fails would squeeze the others into a line.
    """
    sizes = {
        name: max(map(abs, values.values()), default=math.inf)
        for name, values in differences(results).items()
    }
    limit = 10 * statistics.median_low(sizes.values()) if sizes else 0.0
    return {baseline(results).optimizer, *(name for name in sizes if sizes[name] <= limit)}


def _outside(names: Sequence[str]) -> str:
    """Which optimizers lie outside the first view, as a sentence to add to a note."""
    return f" Far from the others, so not in the first view: {', '.join(names)}." if names else ""


def _counted(results: Results, found: dict[str, dict[int, float]]) -> str:
    """On how many seeds each optimizer did better, in words. A diverged seed did not."""
    name, sign = baseline(results).optimizer, 1 if results.direction == "min" else -1
    counts = {other: sum(sign * x < 0 for x in values.values()) for other, values in found.items()}
    # Where the baseline diverged, nothing can be said.
    seeds = sum(not run.diverged for run in results.runs_of(name))
    if len(counts) > 3:
        always = sum(good == seeds for good in counts.values())
        return f"{always} of {len(counts)} better than {name} on every seed"
    each = [f"{good} of {seeds} ({other})" for other, good in counts.items()]
    return f"better than {name} on {', '.join(each)}"


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
    return Figure(f"{rows}-{key}", title, note + _outside(far), plot, views)


def _views(results: Results, drawn: Sequence[Curve]) -> dict[str, dict[str, Any]]:
    """Parts of the figure worth a look: axes that show the first steps hide the last ones."""
    end, close = results.steps, _near(results)
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
    alike = all(curve.mean == longest.mean[: len(curve.x)] for curve in drawn)
    if same := alike and len(drawn) == len(results.comparisons) > 1:
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
    if low == high:
        return f"stays at {low}"
    if values == sorted(values):
        return f"rises from {low} to {high}"
    if values == sorted(values, reverse=True):
        return f"falls from {high} to {low}"
    if values == sorted(values[:peak]) + sorted(values[peak:], reverse=True):
        return f"rises to {high}, then falls to {last}"
    return f"goes back and forth between {low} and {high}"
