"""The HTML page of a study: its report."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from bandwise.figures import study_words
from bandwise.figures.lens_page import Chapter
from bandwise.figures.lens_runs import runs_of_study
from bandwise.figures.pages import fill, save
from bandwise.figures.study_figures import study_figures
from bandwise.figures.study_words import Decimals, all_diverged, baseline, rests_on
from bandwise.study.results import Results, Verdict


def write_report(results: Results, folder: Path) -> Path:
    """Write the report of a study into ``report.html``, whole or not at all.

    Args:
        results: of the study.
        folder: of the study. The lens's logs in it are drawn too.

    Returns:
        The path of the report.

    Raises:
        DamagedRunError: a log of the lens is not what was written.
    """
    return save(render_report(results, folder), folder / "report.html")


def render_report(results: Results, folder: Path) -> str:
    """The report as text; see ``write_report``."""
    shared, each = configurations(results)
    finals = dict.fromkeys(key for run in results.runs for key in run.final if key != "step")
    return fill(
        "study.html.jinja",
        results=results,
        words=study_words,
        decimals=Decimals.of(results),
        title=_title(results),
        lead=_lead(results),
        figures=study_figures(results),
        chapter=Chapter.of({results.task: runs_of_study(results, folder)}),
        shared=shared,
        each=each,
        finals=sorted(finals, key=lambda key: key != results.metric),
    )


def _title(results: Results) -> str:
    name, compared = baseline(results).optimizer, len(results.comparisons) - 1
    if compared == 0:
        return f"{name} alone on {results.task}"
    if compared == 1:
        return f"Does {results.comparisons[1].optimizer} help on {results.task}?"
    return f"Does any of {compared} optimizers help on {results.task}?"


def _lead(results: Results) -> str:
    """The whole study in a sentence."""
    if lost := all_diverged(results):
        return lost
    rows = results.comparisons[1:]
    name = baseline(results).optimizer
    if not rows:
        return rests_on(results)
    if all(row.verdict == "one seed: cannot tell" for row in rows):
        return f"One seed cannot tell: run more seeds to know whether anything beats {name}."
    kinds: dict[Verdict, str] = {
        "better": "better",
        "worse": "worse",
        "identical": "identical",
        "all diverged": "diverged as it did",
        "no detectable difference": "with no detectable difference",
    }
    verdicts = Counter(row.verdict for row in rows)
    parts = [f"{verdicts[kind]} {words}" for kind, words in kinds.items() if verdicts[kind]]
    return f"Against {name}: {', '.join(parts)}."


def configurations(results: Results) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The settings that all optimizers share, and by optimizer those that differ.

    Nested settings get dotted names. A setting that depends on the seed lists all its values.
    """
    each: dict[str, dict[str, str]] = {}
    for row in results.comparisons:
        values: dict[str, dict[str, None]] = {}
        for run in results.runs_of(row.optimizer):
            for key, value in _flat(run.config).items():
                values.setdefault(key, {})[value] = None
        each[row.optimizer] = {key: ", ".join(found) for key, found in values.items()}
    first, *others = each.values()
    shared = {
        key: value
        for key, value in first.items()
        if all(other.get(key) == value for other in others)
    }
    return shared, {
        name: {key: value for key, value in values.items() if key not in shared}
        for name, values in each.items()
    }


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat
