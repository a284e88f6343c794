"""Each seed's difference from the baseline, as a dot plot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Container, Sequence

from bandwise.figures.dots import Dots, dot_plot
from bandwise.figures.figure import Figure, start_in
from bandwise.figures.study_words import Decimals, baseline, readable
from bandwise.figures.words import headline, plural
from bandwise.study.paired import last_values
from bandwise.study.results import Results


def difference_figure(results: Results) -> Figure | None:
    """Each seed's difference from the baseline, with the mean and its interval."""
    found = differences(results)
    if not any(found.values()):
        return None
    base, close = baseline(results).optimizer, near(results)
    what = f"{headline(readable(results.metric))}: difference from {base}"
    plot = dot_plot([_dots(results, name) for name in found], what, {"baseline": 0})
    left, right = ("better", "worse") if results.direction == "min" else ("worse", "better")
    top = {"xref": "paper", "yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False}
    plot.add_annotation(x=0, xanchor="left", text=f"← {left}", yshift=20, **top)
    plot.add_annotation(x=1, xanchor="right", text=f"{right} →", yshift=20, **top)
    views = {
        "close to the baseline": {"xaxis.range": _extent(results, close)},
        "all": {"xaxis.range": _extent(results, found)},
    }
    start_in(plot, views["close to the baseline"])
    note = "Dots are seeds; the diamond is their mean, the bar its 95% t-interval."
    if len(results.seeds) == 1:
        note = "Each optimizer has one dot, from one seed: a gap of any size may be chance."
    if missing := sum(len(results.seeds) - len(values) for values in found.values()):
        note += f" Not drawn: {plural(missing, 'run')} without a finite difference."
    far = [name for name, values in found.items() if values and name not in close]
    title = f"Seed by seed: {_counted(results)}"
    return Figure("differences", title, note + outside(far), plot, views if far else {})


def outside(names: Sequence[str]) -> str:
    """Which optimizers lie outside the first view, as a sentence to add to a note."""
    return f" Far from the others, so not in the first view: {', '.join(names)}." if names else ""


def differences(results: Results) -> dict[str, dict[int, float]]:
    """Each optimizer's differences from the baseline by seed, where both ended with a figure."""
    last = {
        row.optimizer: last_values(results.runs_of(row.optimizer), results.metric)
        for row in results.comparisons
    }
    base = last.pop(baseline(results).optimizer)
    return {
        name: {
            seed: value
            for seed, value in zip(results.seeds, ours.minus(base).values, strict=True)
            if value is not None
        }
        for name, ours in last.items()
    }


def near(results: Results) -> set[str]:
    """The baseline, and who is within ten times the median optimizer's distance from it.

    One optimizer that fails would squeeze the others into a line.
    """
    sizes = {
        name: max(map(abs, values.values()), default=math.inf)
        for name, values in differences(results).items()
    }
    limit = 10 * statistics.median_low(sizes.values()) if sizes else 0.0
    return {baseline(results).optimizer, *(name for name in sizes if sizes[name] <= limit)}


def _dots(results: Results, name: str) -> Dots:
    """A row of the dot plot: the seeds' differences, and below them the mean and its interval."""
    (row,) = (row for row in results.comparisons if row.optimizer == name)
    decimals = Decimals.of(results)
    values = [
        (f"seed {seed}: {decimals.signed(value)}", value)
        for seed, value in differences(results)[name].items()
    ]
    mean = None if row.interval is None else row.difference
    words = f"mean {decimals.signed(mean)}, 95% {decimals.interval(row)}"
    index = results.comparisons.index(row)
    return Dots(index, name, "seeds", values, mean, row.interval, words)


def _extent(results: Results, names: Container[str]) -> list[float]:
    """The x range that holds the baseline and the seeds and intervals of some optimizers."""
    reached = [0.0]
    for row in results.comparisons[1:]:
        if row.optimizer in names:
            reached += [*differences(results)[row.optimizer].values(), *(row.interval or ())]
    margin = 0.08 * (max(reached) - min(reached)) or 1.0
    return [min(reached) - margin, max(reached) + margin]


def _counted(results: Results) -> str:
    """On how many seeds each optimizer did better, in words. A diverged seed did not."""
    name, sign = baseline(results).optimizer, 1 if results.direction == "min" else -1
    counts = {
        other: sum(sign * value < 0 for value in values.values())
        for other, values in differences(results).items()
    }
    # Where the baseline diverged, nothing can be said.
    seeds = sum(not run.diverged for run in results.runs_of(name))
    if len(counts) > 3:
        always = sum(good == seeds for good in counts.values())
        return f"{always} of {len(counts)} better than {name} on every seed"
    each = [f"{good} of {seeds} ({other})" for other, good in counts.items()]
    return f"better than {name} on {', '.join(each)}"
