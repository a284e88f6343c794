"""Tables for the terminal, to print with a rich ``Console``: of a study, and of lens logs."""

from __future__ import annotations

from functools import partial

from rich import box
from rich.table import Table
from rich.text import Text

from bandwise.figures.instruments import Runs
from bandwise.figures.instruments.rows import (
    Value,
    figure,
    last_of,
    means,
    ratio,
    ratio_in_decibels,
)
from bandwise.figures.study_words import (
    Decimals,
    all_diverged,
    baseline,
    goal,
    milliseconds,
    readable,
    rests_on,
    steps_to_baseline,
    times_note,
)
from bandwise.figures.words import DASH, MINUS, number, plural
from bandwise.study.results import Comparison, Results

_STYLES = {"better": "bold green", "worse": "bold red", "one seed: cannot tell": "yellow"}

# Heading, quantity, value and format of each column of the lens's table.
_LENS_COLUMNS: list[tuple[str, str, Value, str]] = [
    ("low/high\nwithin\n(dB)", "temporal", ratio_in_decibels("gain_low", "gain_high"), "+.1f"),
    ("size\nslope", "temporal", figure("size_slope"), "+.2f"),
    ("rate\nslope", "temporal", figure("rate_slope"), "+.2f"),
    ("low\nenergy\n/ white", "spatial", ratio("low", "white_low"), ".2f"),
    ("mask\nkeeps", "spatial", figure("kept"), ".1%"),
    ("spectral\nnorm", "weights", figure("spectral_norm"), ".3g"),
    ("rank\nratio", "weights", figure("effective_rank_ratio"), ".3f"),
]


def study_table(results: Results) -> Table:
    """Every optimizer against the baseline, a row each.

    It fits 80 columns. Words say all that its colours say.

    Args:
        results: of the study.
    """
    shown = _table(
        f"{results.task}: {readable(results.metric)} after {plural(results.steps, 'step')}, "
        f"n = {plural(len(results.seeds), 'seed')}",
        "\n".join(filter(None, _notes(results))),
    )
    shown.add_column("optimizer", overflow="fold", min_width=9)
    shown.add_column("mean ± std", justify="right", no_wrap=True)
    shown.add_column("difference\n95% t-interval", justify="right")
    shown.add_column("steps to\nbaseline", justify="right")
    shown.add_column("ms per\nstep", justify="right")
    shown.add_column("verdict", max_width=13)
    decimals = Decimals.of(results)
    for row in results.comparisons:
        shown.add_row(
            _text(row.optimizer),
            _text(decimals.cell(row)),
            _text(_difference(decimals, row)),
            _text(steps_to_baseline(results, row).replace(" ", "\n")),
            milliseconds(row.seconds_per_step),
            Text(row.verdict, style=_STYLES.get(row.verdict, "")),
        )
    return shown


def _difference(decimals: Decimals, row: Comparison) -> str:
    difference, interval = decimals.signed(row.difference), decimals.interval(row)
    return difference if interval == DASH else f"{difference}\n{interval}"


def _notes(results: Results) -> list[str]:
    return [
        all_diverged(results),
        *(
            f"{row.optimizer}: {row.why}"
            for row in results.comparisons
            if row.verdict == "identical"
        ),
        rests_on(results),
        f"Steps to baseline: the first evaluation, median over seeds, at which "
        f"{readable(results.metric)} ({goal(results)}) was as good as "
        f"{baseline(results).optimizer}'s last.",
        times_note(results),
    ]


def lens_table(runs: Runs, name: str = "") -> Table:
    """The last figures for the whole model: a row for each label, the mean over its runs.

    Args:
        runs: the rows of each run, by label.
        name: of the study.
    """
    shown = _table(
        f"{name or 'the lens'}: the whole model, as last measured",
        "low/high within: how much more a single weight's slow changes are amplified than its fast "
        "ones; momentum does that. Slopes: how the step per unit of gradient goes with the "
        "gradient's size and with its rate of sign changes, among weights. SGD has 0, Adam a size "
        "slope of -1. Low energy: the low band's share of the gradients' energy, as a multiple of "
        f"white noise's. {_last_measured(runs)}",
    )
    shown.add_column("", overflow="fold", min_width=9)
    columns: list[dict[str, str]] = []
    for heading, quantity, value, form in _LENS_COLUMNS:
        if found := means(runs, value, partial(last_of, quantity=quantity)):
            shown.add_column(heading, justify="right")
            columns.append({label: number(mean, form) for label, mean in found.items()})
    for label in runs:
        if any(label in column for column in columns):
            shown.add_row(_text(label), *(_text(column.get(label, "-")) for column in columns))
    return shown


def _last_measured(runs: Runs) -> str:
    """The steps of each quantity's last rows: a run that was cut off has no last weights."""
    said = []
    for quantity in dict.fromkeys(quantity for _, quantity, *_ in _LENS_COLUMNS):
        rows = [row for some in runs.values() for run in some for row in last_of(run, quantity)]
        steps = sorted({row["step"] for row in rows})
        if steps:
            ends = dict.fromkeys((steps[0], steps[-1]))
            said.append(f"{quantity} at step {' to '.join(f'{step:,}' for step in ends)}")
    return f"Last measured: {', '.join(said)}." if said else ""


def _table(title: str, caption: str) -> Table:
    return Table(
        title=_text(title),
        caption=_text(f"\n{caption}"),
        caption_justify="left",
        min_width=60,  # the caption is no wider than the table
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        show_edge=False,
    )


def _text(words: str) -> Text:
    """Text in which rich reads no markup: a label may hold ``[0.9]``.

    It has hyphens for minus signs, which some terminals' encodings lack.
    """
    return Text(words.replace(MINUS, "-"))
