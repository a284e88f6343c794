"""SMI's mask: how much of the gradient it keeps, and how much of itself."""

from __future__ import annotations

from collections.abc import Callable

from bandwise.figures.figure import Figure
from bandwise.figures.instruments.curves import series
from bandwise.figures.instruments.rows import Runs, rows_of
from bandwise.figures.words import number

_WHOSE = "With optimizers that have no mask, it is the one that SMI would begin with."


def kept(runs: Runs) -> Figure | None:
    """The mask's share of the gradient's energy over steps, beside its share of coefficients."""
    return series(
        "mask-kept",
        runs,
        "spatial",
        lambda row: row.get("kept"),
        "Energy that SMI's mask keeps",
        note="The mask's share of the gradient's energy. Where it lies far above the mask's share "
        f"of the coefficients, dotted, few of them carry the gradient. {_WHOSE}",
        y="share of energy",
        form=".1%",
        references=_by_q(runs, "its share of the coefficients", lambda q: 1 - q),
    )


def overlap(runs: Runs) -> Figure | None:
    """The overlap of the mask with the one measured before, over steps, beside chance."""
    return series(
        "mask-overlap",
        runs,
        "spatial",
        lambda row: row.get("overlap"),
        "Overlap of SMI's mask with itself",
        note="Coefficients in both this mask and the one measured before, over those in either: 1 "
        f"if it stayed the same; masks that have nothing to do with each other lie at the dots. "
        f"{_WHOSE}",
        y="overlap (Jaccard)",
        form=".2f",
        references=_by_q(runs, "chance", lambda q: (1 - q) / (1 + q)),
    )


def _by_q(runs: Runs, words: str, value: Callable[[float], float]) -> dict[str, float]:
    """A reference for each q that a mask was made with."""
    rows = [row for some in runs.values() for run in some for row in rows_of(run, "spatial")]
    found = sorted({row["q"] for row in rows if row.get("kept") is not None})
    if len(found) == 1:
        return {words: value(found[0])}
    return {f"{words}, q = {number(q)}": value(q) for q in found}
