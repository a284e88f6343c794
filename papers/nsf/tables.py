"""The tables of the NSF paper's parts: one for each study, with one row for each optimizer."""

from __future__ import annotations

from collections.abc import Mapping

from bandwise.figures.words import DASH, number
from bandwise.study.paired import Sample
from papers.nsf.measures import rate_slope
from papers.paper import Data, Table
from papers.stored import Study, final
from papers.verdicts import written

_TITLES = {
    "lead": "Everything else the same",
    "steps": "p = 0.7",
    "authors": "The authors' rule in their regime, and its controls",
    "images": "Images",
    "ablation": "Our cycle's period, shape, range and scale",
    "layers": "p = 0.7 for one kind of layer, AdamW for the others",
    "mechanism": "p = 0.7 for one part of d, AdamW's exponent for the others",
    "tuned": "Learning rate and decay tuned, the same budget for each",
}
# By title: what a reader of the table must know.
_NOTES = {
    _TITLES["ablation"]: " The row `scale=none` was trained by m̂ d^(-2p), before `none` became the "
    "rule of NSF's authors.",
    _TITLES["tuned"]: " On seeds 1, 5 and 7 AdamW as tuned trained unstably and ended at 2.43 to "
    "2.54, so the medians and the other seven seeds tell more (docs/nsf.md).",
}


def tables(parts: Mapping[str, Data]) -> list[Table]:
    """The tables of the stored parts."""
    made = [_table(title, study) for title, study in studies(parts)]
    return made + [_slopes(task, study) for task, study in parts.get("response", {}).items()]


def studies(parts: Mapping[str, Data]) -> list[tuple[str, Data]]:
    """The stored studies, each with its title."""
    found = []
    for part, title in _TITLES.items():
        data = parts.get(part, {})
        several = {"": data} if "runs" in data else data
        found += [
            (f"{title} ({name})" if name else title, study)
            for name, study in several.items()
            if "runs" in study
        ]
    return found


def _slopes(task: str, data: Data) -> Table:
    study = Study(data)
    return Table(
        f"Which frequencies each exponent favours ({task})",
        "How the step of a coordinate goes with how often its gradient changes sign, the slope of "
        "the logarithms: below 0 slow coordinates are favoured. Mean over seeds and its 95% "
        "t-interval.",
        ["optimizer", "slope"],
        [[name, written(study.sample(name, rate_slope), "+.2f")] for name in study.optimizers],
    )


def _table(title: str, data: Data) -> Table:
    study, metric = Study(data), data["metric"]
    baseline, *_ = names = study.optimizers
    tested = metric.replace("val_", "test_")
    has_test = tested in data["runs"][0]["final"]
    rows = []
    for name in names:
        difference = study.difference(name, baseline, final(metric))
        middle = DASH if difference.median is None else number(difference.median, "+.4g")
        row = [
            name,
            _mean(study.sample(name, final(metric))),
            "baseline" if name == baseline else written(difference),
            DASH if name == baseline else middle,
        ]
        rows.append(row + ([_mean(study.sample(name, final(tested)))] if has_test else []))
    note = (
        f"{data['steps']} steps; means over seeds. Differences from {baseline} are taken by seed: "
        f"their mean with its 95% t-interval, and their median.{_NOTES.get(title, '')}"
    )
    columns = ["optimizer", metric, "difference", "median", *([tested] if has_test else [])]
    return Table(title, note, columns, rows)


def _mean(found: Sample) -> str:
    if any(found.diverged):
        return f"{sum(found.diverged)} of {found.n} diverged"
    return f"{found.mean:.4g}"
