"""The last figures that lenses recorded, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from bandwise.figures.instruments import Runs
from bandwise.figures.instruments.rows import decibels, means, quotient, rows_of
from bandwise.figures.words import MINUS, number
from bandwise.lens import Row

_Value = Callable[[Row], float | None]

# Heading, quantity, figure and format of each column.
_COLUMNS: list[tuple[str, str, _Value, str]] = [
    (
        "low/high\nwithin\n(dB)",
        "temporal",
        lambda row: decibels(quotient(row, "gain_low", "gain_high")),
        "+.1f",
    ),
    ("size\nslope", "temporal", lambda row: row.get("size_slope"), "+.2f"),
    ("rate\nslope", "temporal", lambda row: row.get("rate_slope"), "+.2f"),
    ("low\nenergy\n/ white", "spatial", lambda row: quotient(row, "low", "white_low"), ".2f"),
    ("mask\nkeeps", "spatial", lambda row: row.get("kept"), ".1%"),
    ("spectral\nnorm", "weights", lambda row: row.get("spectral_norm"), ".3g"),
    ("rank\nratio", "weights", lambda row: row.get("effective_rank_ratio"), ".3f"),
]


def lens_table(runs: Runs, name: str = "") -> Table:
    """The last figures for the whole model: for each label a row, with the mean over its runs.

    Args:
        runs: the rows of each run, by label.
        name: of the study.
    """
    shown = Table(
        title=_text(f"{name or 'the lens'}: the whole model, as last measured"),
        caption=_text(
            "\nlow/high within: what a coordinate's slow changes are amplified by over its fast "
            "ones: momentum. Slopes: step per unit of gradient against the gradient's size and "
            "rate of sign changes, among coordinates: SGD has 0, Adam a size slope of -1. Low "
            "energy: of gradients as matrices, as a multiple of white noise's. "
            f"{_last_measured(runs)}"
        ),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        show_edge=False,
    )
    shown.add_column("", overflow="fold", min_width=9)
    cells: list[dict[str, str]] = []
    for heading, quantity, value, form in _COLUMNS:

        def last(rows: Sequence[Row], quantity: str = quantity) -> list[Row]:
            return rows_of(rows, quantity)[-1:]

        found = means(runs, value, last)
        if found:
            shown.add_column(heading, justify="right")
            cells.append({label: number(mean, form) for label, mean in found.items()})
    for label in runs:
        if any(label in column for column in cells):
            shown.add_row(_text(label), *(_text(column.get(label, "-")) for column in cells))
    return shown


def _last_measured(runs: Runs) -> str:
    """At which step each quantity was, in words: a run that was cut off has no last weights."""
    said = []
    for quantity in dict.fromkeys(quantity for _, quantity, *_ in _COLUMNS):
        last = [rows_of(rows, quantity)[-1:] for some in runs.values() for rows in some]
        steps = sorted({row["step"] for rows in last for row in rows})
        if steps:
            ends = dict.fromkeys((steps[0], steps[-1]))
            said.append(f"{quantity} at step {' to '.join(f'{step:,}' for step in ends)}")
    return f"Last measured: {', '.join(said)}." if said else ""


def _text(words: str) -> Text:
    """Text that rich does not read as markup, with the hyphen for the minus sign."""
    return Text(words.replace(MINUS, "-"))
