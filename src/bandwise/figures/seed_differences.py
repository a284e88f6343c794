"""Each seed's difference from the baseline, as a dot plot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import replace

from bandwise.figures.dots import Dots, dot_plot
from bandwise.figures.figure import Figure, start_in
from bandwise.figures.study_words import Decimals, baseline, readable
from bandwise.figures.words import headline, plural
from bandwise.study.results import Results


def difference_figure(results: Results) -> Figure | None:
    """Each seed's difference from the baseline, with the mean and its interval."""
    drawn = [
        index
        for index, row in enumerate(results.comparisons)
        if index and differences(results, row.optimizer)
    ]
    if not drawn:
        return None
    what = f"{headline(readable(results.metric))}: difference from {baseline(results).optimizer}"
    places = range(1, len(results.comparisons))
    plot = dot_plot([_dots(results, index) for index in places], what, {"baseline": 0})
    left, right = ("better", "worse") if results.direction == "min" else ("worse", "better")
    top = {"yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False}
    plot.add_annotation(x=0, xref="paper", xanchor="left", text=f"← {left}", yshift=20, **top)
    plot.add_annotation(x=1, xref="paper", xanchor="right", text=f"{right} →", yshift=20, **top)
    views = {
        "close to the baseline": {"xaxis.range": _extent(results, near(results))},
        "all": {"xaxis.range": _extent(results, places)},
    }
    start_in(plot, views["close to the baseline"])
    note = "Dots are seeds; the diamond is their mean, the bar its 95% interval."
    if len(results.seeds) == 1:
        note = "Each optimizer has one dot, from one seed: a gap of any size may be chance."
    seeds = len(results.seeds) * len(places)
    missing = seeds - sum(
        len(differences(results, results.comparisons[i].optimizer)) for i in places
    )
    if missing:
        note += f" Not drawn: {plural(missing, 'run')} without a finite difference."
    far = [results.comparisons[i].optimizer for i in drawn if i not in near(results)]
    note += outside(far)
    return Figure("differences", _counted(results), note, plot, views if far else {})


def outside(names: Iterable[str]) -> str:
    """Which optimizers lie outside the first view, as a sentence to add to a note."""
    words = ", ".join(names)
    return f" Far from the others, so not in the first view: {words}." if words else ""


def _dots(results: Results, index: int) -> Dots:
    """A row of the dot plot: the seeds' differences, and below them the mean and its interval."""
    row, decimals = results.comparisons[index], Decimals.of(results)
    dots = Dots(
        index=index,
        name=row.optimizer,
        kind="seeds",
        values=[
            (f"seed {seed}: {decimals.signed(value)}", value)
            for seed, value in differences(results, row.optimizer)
        ],
    )
    if row.difference is None or row.interval is None or not math.isfinite(row.difference):
        return dots
    words = f"mean {decimals.signed(row.difference)}, 95% {decimals.interval(row)}"
    return replace(dots, mean=row.difference, interval=row.interval, words=words)


def _extent(results: Results, rows: Iterable[int]) -> list[float]:
    """The x range that holds the baseline and the rows' seeds and intervals."""
    reached = [0.0]
    for index in rows:
        row = results.comparisons[index]
        reached += [value for _, value in differences(results, row.optimizer)]
        reached += [value for value in row.interval or () if math.isfinite(value)]
    margin = 0.08 * (max(reached) - min(reached)) or 1.0
    return [min(reached) - margin, max(reached) + margin]


def differences(results: Results, optimizer: str) -> list[tuple[int, float]]:
    """Seed and difference of the final metric from the baseline's, where both are finite."""
    ours, theirs = (
        {run.seed: run.final.get(results.metric, math.nan) for run in results.runs_of(name)}
        for name in (optimizer, baseline(results).optimizer)
    )
    pairs = [(seed, value - theirs.get(seed, math.nan)) for seed, value in ours.items()]
    return [(seed, value) for seed, value in pairs if math.isfinite(value)]


def _counted(results: Results) -> str:
    """On how many seeds each optimizer did better, in words."""
    name = baseline(results).optimizer
    counts = {}
    for row in results.comparisons[1:]:
        values = [value for _, value in differences(results, row.optimizer)]
        counts[row.optimizer] = sum(
            value < 0 if results.direction == "min" else value > 0 for value in values
        )
    # A seed that diverged was no better. Where the baseline diverged, nothing can be said.
    seeds = len(differences(results, name))
    if len(counts) > 3:
        always = sum(good == seeds for good in counts.values())
        return f"Seed by seed: {always} of {len(counts)} better than {name} on every seed"
    each = [f"{good} of {seeds} ({other})" for other, good in counts.items()]
    return f"Seed by seed: better than {name} on {', '.join(each)}"


def near(results: Results) -> set[int]:
    """The rows within ten times the median row's distance from the baseline, and the baseline.

    One optimizer that fails would squeeze the others into a line.
    """
    sizes = {
        index: max(
            (abs(value) for _, value in differences(results, row.optimizer)), default=math.inf
        )
        for index, row in enumerate(results.comparisons)
        if index
    }
    limit = 10 * statistics.median_low(sizes.values()) if sizes else 0.0
    return {0} | {index for index, size in sizes.items() if size <= limit}
