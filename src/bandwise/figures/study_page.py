"""The HTML page of a study: its report."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from bandwise.figures import study_words
from bandwise.figures.lens_page import Chapter
from bandwise.figures.lens_runs import runs_of_study
from bandwise.figures.pages import fill, save
from bandwise.figures.study_figures import study_figures
from bandwise.study.results import Results


def write_report(results: Results, folder: Path) -> Path:
    """Write the report of a study into ``report.html`` in its folder, with the logs that lie there.

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
        decimals=study_words.Decimals.of(results),
        title=_title(results),
        lead=_lead(results),
        figures=study_figures(results),
        chapter=Chapter.of({results.task: runs_of_study(results, folder)}),
        shared=shared,
        each=each,
        finals=sorted(finals, key=lambda key: key != results.metric),
    )


def _title(results: Results) -> str:
    name, *others = (row.optimizer for row in results.comparisons)
    if not others:
        return f"{name} alone on {results.task}"
    who = others[0] if len(others) == 1 else f"any of {len(others)} optimizers"
    return f"Does {who} help on {results.task}?"


def _lead(results: Results) -> str:
    """The whole study in a sentence."""
    if lost := study_words.all_diverged(results):
        return lost
    base, *rows = results.comparisons
    verdicts = Counter(row.verdict for row in rows)
    if not rows:
        return study_words.rests_on(results)
    if verdicts["one seed: cannot tell"] == len(rows):
        return (
            f"One seed cannot tell: run more seeds to know whether anything beats {base.optimizer}."
        )
    kinds = study_words.VERDICTS.items()
    parts = [f"{verdicts[kind]} {words}" for kind, (_, words) in kinds if words and verdicts[kind]]
    return f"Against {base.optimizer}: {', '.join(parts)}."


def configurations(results: Results) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """The settings that all optimizers share, and by optimizer those that differ.

    Nested settings get dotted names. A setting that depends on the seed lists all its values.
    """
    each: dict[str, dict[str, str]] = {}
    for row in results.comparisons:
        flat = [_flat(run.config) for run in results.runs_of(row.optimizer)]
        keys = dict.fromkeys(key for values in flat for key in values)
        each[row.optimizer] = {
            key: ", ".join(dict.fromkeys(values[key] for values in flat if key in values))
            for key in keys
        }
    first, *others = each.values()
    alike = {key for key in first if all(other.get(key) == first[key] for other in others)}
    return {key: value for key, value in first.items() if key in alike}, {
        name: {key: value for key, value in values.items() if key not in alike}
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
