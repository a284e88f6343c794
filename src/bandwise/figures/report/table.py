"""The comparison as a table for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from bandwise.figures.report.text import (
    Decimals,
    all_diverged,
    baseline,
    goal,
    readable,
    rests_on,
    steps_to_baseline,
    times_note,
)
from bandwise.figures.words import DASH, MINUS, plural
from bandwise.study.results import Comparison, Results

_STYLES = {"better": "bold green", "worse": "bold red", "one seed: cannot tell": "yellow"}


def table(results: Results) -> Table:
    """Every optimizer against the baseline, a row each, to print with a rich ``Console``.

    It fits 80 columns, and says in words all that it says in colour.

    Args:
        results: the study to show.
    """
    shown = Table(
        title=_text(
            f"{results.task}: {readable(results.metric)} after {plural(results.steps, 'step')}, "
            f"n = {plural(len(results.seeds), 'seed')}"
        ),
        caption=_text("\n" + "\n".join(filter(None, _notes(results)))),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        show_edge=False,
    )
    shown.add_column("optimizer", overflow="fold", min_width=9)
    shown.add_column("mean ± std", justify="right", no_wrap=True)
    shown.add_column("difference\n95% interval", justify="right")
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
            f"{1000 * row.seconds_per_step:,.3g}",
            Text(row.verdict, style=_STYLES.get(row.verdict, "")),
        )
    return shown


def _text(words: str) -> Text:
    """Text that rich does not read as markup: a label may hold ``[0.9]``.

    With the hyphen for the minus sign, which not every terminal's encoding has.
    """
    return Text(words.replace(MINUS, "-"))


def _difference(decimals: Decimals, row: Comparison) -> str:
    difference, interval = decimals.signed(row.difference), decimals.interval(row)
    return difference if interval == DASH else f"{difference}\n{interval}"


def _notes(results: Results) -> list[str]:
    name = baseline(results).optimizer
    same = [row for row in results.comparisons if row.verdict == "identical"]
    return [
        all_diverged(results),
        *(f"{row.optimizer}: {row.why}" for row in same),
        rests_on(results),
        f"Steps to baseline: the first evaluation, median over seeds, at which "
        f"{readable(results.metric)} ({goal(results)}) was as good as {name}'s last.",
        times_note(results),
    ]
