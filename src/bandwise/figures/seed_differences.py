"""Each seed's difference from the baseline, as a dot plot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from bandwise.figures.dots import Dots, dot_plot
from bandwise.figures.figure import Figure, padded
from bandwise.figures.study_words import Decimals, baseline, readable
from bandwise.figures.words import headline, plural
from bandwise.study.paired import last_values
from bandwise.study.results import Results


def difference_figure(results: Results) -> Figure | None:
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
    plot = dot_plot(
        dots, f"{headline(readable(results.metric))}: difference from {base}", {"baseline": 0}
    )
    left, right = ("better", "worse") if results.direction == "min" else ("worse", "better")
    top = {"xref": "paper", "yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False}
    plot.add_annotation(x=0, xanchor="left", text=f"← {left}", yshift=20, **top)
    plot.add_annotation(x=1, xanchor="right", text=f"{right} →", yshift=20, **top)
    close = near(results)
    far = [name for name, seeds in found.items() if seeds and name not in close]
    views = {"close to the baseline": close, "all": set(reached)} if far else {"all": set(reached)}
    note = "Dots are seeds; the diamond is their mean, the bar its 95% interval."
    if len(results.seeds) == 1:
        note = "Each optimizer has one dot, from one seed: a gap of any size may be chance."
    if missing := sum(len(results.seeds) - len(seeds) for seeds in found.values()):
        note += f" Not drawn: {plural(missing, 'run')} without a finite difference."
    return Figure(
        "differences",
        f"Seed by seed: {_counted(results)}",
        note + outside(far),
        plot,
        {
            view: {"xaxis.range": padded([at for name in names for at in reached[name]], 0.08)}
            for view, names in views.items()
        },
    )


def outside(names: Sequence[str]) -> str:
    """Which optimizers lie outside the first view, as a sentence to add to a note."""
    return f" Far from the others, so not in the first view: {', '.join(names)}." if names else ""


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
