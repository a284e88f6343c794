"""Tables for the terminal, to print with a rich ``Console``: of a study, and of lens logs."""

from functools import partial

from rich import box
from rich.table import Table
from rich.text import Text

from bandwise.figures import study_words as words
from bandwise.figures.instruments import Runs
from bandwise.figures.instruments.rows import Value, last_of, means
from bandwise.figures.words import DASH, MINUS, number, plural
from bandwise.study.results import Results

_STYLES = {"better": "bold green", "worse": "bold red", "one seed: cannot tell": "yellow"}

# Heading, quantity, value and format of each column of the lens's table.
_LENS_COLUMNS: list[tuple[str, str, Value, str]] = [
    ("low/high\nwithin\n(dB)", "temporal", Value("gain_low", "gain_high", decibels=True), "+.1f"),
    ("size\nslope", "temporal", Value("size_slope"), "+.2f"),
    ("rate\nslope", "temporal", Value("rate_slope"), "+.2f"),
    ("low\nenergy\n/ white", "spatial", Value("low", "white_low"), ".2f"),
    ("mask\nkeeps", "spatial", Value("kept"), ".1%"),
    ("spectral\nnorm", "weights", Value("spectral_norm"), ".3g"),
    ("rank\nratio", "weights", Value("effective_rank_ratio"), ".3f"),
]


def study_table(results: Results) -> Table:
    """Every optimizer against the baseline, a row each.

    It fits 80 columns. Words say all that its colours say.
    """
    decimals, metric = words.Decimals.of(results), words.readable(results.metric)
    same = [f"{r.optimizer}: {r.why}" for r in results.comparisons if r.verdict == "identical"]
    notes = [
        words.all_diverged(results),
        *same,
        words.rests_on(results),
        f"Steps to baseline: the first evaluation, median over seeds, at which {metric} "
        f"({words.goal(results)}) was as good as {words.baseline(results).optimizer}'s last.",
        words.times_note(results),
    ]
    shown = _table(
        f"{results.task}: {metric} after {plural(results.steps, 'step')}, "
        f"n = {plural(len(results.seeds), 'seed')}",
        "\n".join(filter(None, notes)),
    )
    shown.add_column("optimizer", overflow="fold", min_width=9)
    shown.add_column("mean ± std", justify="right", no_wrap=True)
    for heading in ("difference\n95% t-interval", "steps to\nbaseline", "ms per\nstep"):
        shown.add_column(heading, justify="right")
    shown.add_column("verdict", max_width=13)
    for row in results.comparisons:
        difference, interval = decimals.signed(row.difference), decimals.interval(row)
        shown.add_row(
            _text(row.optimizer),
            _text(decimals.cell(row)),
            _text(difference if interval == DASH else f"{difference}\n{interval}"),
            _text(words.steps_to_baseline(results, row).replace(" ", "\n")),
            words.milliseconds(row.seconds_per_step),
            Text(row.verdict, style=_STYLES.get(row.verdict, "")),
        )
    return shown


def lens_table(runs: Runs, name: str = "") -> Table:
    """The last figures for the whole model: a row for each label, the mean over its runs."""
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
        if steps := {row["step"] for row in rows}:
            ends = dict.fromkeys((min(steps), max(steps)))
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
