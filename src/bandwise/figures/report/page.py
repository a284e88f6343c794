"""The HTML page of a study: one file that needs no network."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bandwise.figures.figure import Line, line
from bandwise.figures.report.figures import figures
from bandwise.figures.report.lens_chapter import Chapter
from bandwise.figures.report.lens_rows import rows_of_study
from bandwise.figures.report.rendering import fill, save
from bandwise.figures.report.text import (
    Decimals,
    all_diverged,
    baseline,
    goal,
    pace,
    readable,
    rests_on,
    sentence,
    steps_to_baseline,
    times_note,
)
from bandwise.figures.words import DASH, TIMES, headline, number, plural
from bandwise.study.results import Comparison, Results, Run, Verdict


def write(results: Results, path: str | os.PathLike[str]) -> Path:
    """Write the report of a study as one HTML file.

    The file appears whole or not at all.

    Args:
        results: the study.
        path: the file to write; in a folder that exists already, ``report.html``.

    Returns:
        The path of the file.
    """
    return save(render(results), Path(path), "report.html")


def render(results: Results) -> str:
    """The page as text."""
    shared, each = configurations(results)
    return fill(
        "study.html.jinja",
        results=results,
        baseline=baseline(results),
        metric=readable(results.metric),
        goal=goal(results),
        title=_title(results),
        lead=_lead(results),
        rests_on=rests_on(results),
        times_note=times_note(results),
        rows=[_row(results, index) for index in range(len(results.comparisons))],
        compared=len(results.comparisons) - 1,
        figures=figures(results),
        chapter=Chapter.of({results.task: rows_of_study(results)}),
        shared=shared,
        each=each,
        finals=_finals(results),
        final_of=_final_of,
        readable=readable,
        headline=headline,
        plural=plural,
    )


@dataclass(frozen=True)
class _Row:
    """An optimizer as the page shows it."""

    comparison: Comparison
    line: Line
    kind: str
    sentence: str
    pace: str
    mean: str
    difference: str
    interval: str
    p_value: str
    steps: str
    milliseconds: str


_KINDS = {"better": "better", "worse": "worse", "baseline": "baseline"}


def _row(results: Results, index: int) -> _Row:
    row = results.comparisons[index]
    decimals = Decimals.of(results)
    base = baseline(results).seconds_per_step
    milliseconds = f"{1000 * row.seconds_per_step:,.3g}"
    return _Row(
        comparison=row,
        line=line(index),
        kind=_KINDS.get(row.verdict, "open"),
        sentence=sentence(results, row),
        pace=_pace(results, row) if index else "",
        mean=decimals.cell(row),
        difference=decimals.signed(row.difference),
        interval=decimals.interval(row),
        p_value=_p_value(row.p_value),
        steps=steps_to_baseline(results, row),
        milliseconds=(
            f"{milliseconds} ({row.seconds_per_step / base:.2f}{TIMES})"
            if base > 0
            else milliseconds
        ),
    )


def _pace(results: Results, row: Comparison) -> str:
    """How soon the optimizer was as good as the baseline, in steps and in time."""
    target = f"{baseline(results).optimizer}'s final {readable(results.metric)}"
    reached = pace(results, row)
    if row.diverged or baseline(results).diverged:
        return ""
    if row.steps_to_baseline is None or reached is None:
        return f"Not every seed reached {target}."
    steps, time = reached
    return (
        f"It reached {target} after {row.steps_to_baseline:,.0f} of {results.steps:,} steps "
        f"({steps:.2f}{TIMES}), in {time:.2f}{TIMES} the time."
    )


def _p_value(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return DASH
    return "< 0.001" if value < 0.001 else f"{min(value, 1.0):.3f}"


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
    }
    verdicts = Counter(row.verdict for row in rows)
    parts = [f"{verdicts[kind]} {words}" for kind, words in kinds.items() if verdicts[kind]]
    rest = len(rows) - sum(verdicts[kind] for kind in kinds)
    if rest:
        parts.append(f"{rest} with no detectable difference")
    return f"Against {name}: {', '.join(parts)}."


def configurations(
    results: Results,
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """What every optimizer was run with, and what each alone was.

    Nested settings get dotted names. A value that depends on the seed lists them all.
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


def _finals(results: Results) -> list[str]:
    """Names of the figures that runs ended with, the metric first."""
    keys = dict.fromkeys(key for run in results.runs for key in run.final if key != "step")
    return sorted(keys, key=lambda key: key != results.metric)


def _final_of(run: Run, key: str) -> str:
    value = run.final.get(key, math.nan)
    if math.isfinite(value):
        return number(value, ".5g")
    return "diverged" if run.diverged else DASH
