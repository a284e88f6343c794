"""What an optimizer's response favours in all, as training goes on."""

from __future__ import annotations

from bandwise.figures.figure import Figure
from bandwise.figures.instruments.curves import series
from bandwise.figures.instruments.rows import Runs, decibels, quotient


def emphasis(runs: Runs) -> Figure | None:
    """The low band of the response R over its high band, in decibels, over steps."""
    return series(
        "emphasis",
        runs,
        "temporal",
        lambda row: decibels(quotient(row, "response_low", "response_high")),
        "Low over high frequencies in all (dB)",
        note="Update over gradient, all weights taken together: the low third of the temporal "
        "frequencies over the high third. Momentum and adaptivity are both in it. 0 dB favours "
        "neither, 20 dB are ten times.",
        y="low / high (dB)",
        form="+.1f",
        references={"neither": 0},
    )
