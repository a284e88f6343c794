"""The figures of the NSF paper's parts: each seed's difference from the baseline, by study."""

from __future__ import annotations

from collections.abc import Mapping

from bandwise.figures.dots import Dots, dot_plot
from bandwise.figures.figure import Figure
from bandwise.figures.words import number
from papers.nsf.tables import studies
from papers.paper import Data
from papers.stored import Study, final
from papers.verdicts import written


def figures(parts: Mapping[str, Data]) -> list[Figure]:
    """One figure for each stored study."""
    return [
        _differences(f"differences-{place}", title, study)
        for place, (title, study) in enumerate(studies(parts))
    ]


def _differences(name: str, title: str, data: Data) -> Figure:
    study = Study(data)
    baseline, *others = study.optimizers
    rows, means = [], {}
    for index, optimizer in enumerate(others, 1):
        found = study.difference(optimizer, baseline, final(data["metric"]))
        seeds = [
            (f"seed {run['seed']}: {number(value, '+.4g')}", value)
            for run, value in zip(study.runs(optimizer), found.values, strict=True)
            if value is not None
        ]
        if found.mean is not None:
            means[optimizer] = found.mean
        words = written(found)
        rows.append(Dots(index, optimizer, seeds, found.mean, found.interval, words))
    sign = 1 if data["direction"] == "min" else -1
    best = min(means, key=lambda optimizer: sign * means[optimizer]) if means else None
    seen = f"{best} ends best ({number(means[best], '+.4g')})" if best else "every run diverged"
    return Figure(
        name,
        f"{title}: {seen}",
        f"{data['metric']} less {baseline}'s with the same seed, after {data['steps']} steps. "
        "Dots are seeds, the diamond is their mean, the bar its 95% t-interval. Runs that "
        "diverged are left out.",
        dot_plot(rows, f"{data['metric']} less {baseline}'s", {"baseline": 0}),
    )
