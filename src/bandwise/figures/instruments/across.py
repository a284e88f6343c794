"""Step length against how often a coordinate's gradient changes its sign, as a curve."""

from __future__ import annotations

from bandwise.figures.curve import Curve, finite
from bandwise.figures.figure import Figure
from bandwise.figures.instruments.curves import curve_figure
from bandwise.figures.instruments.rows import (
    SETTLED,
    Runs,
    averaged,
    compared,
    decibels,
    windows,
)


def across(runs: Runs) -> Figure | None:
    """``across_gain`` over ``across_rate``, each group of coordinates averaged over windows."""
    drawn = []
    for index, (label, some) in enumerate(runs.items()):
        # Groups of coordinates are matched by their order: their rates differ between seeds.
        rates = averaged(
            [finite(enumerate(r["across_rate"])) for run in some for r in windows(run)]
        )
        levels = [
            averaged([finite(enumerate(map(decibels, r["across_gain"]))) for r in windows(run)])
            for run in some
        ]
        seeds = [{rates[i]: level for i, level in run.items() if i in rates} for run in levels]
        drawn.append(Curve.across(index, label, [points for points in seeds if points]))
    drawn = [curve for curve in drawn if curve]
    if not drawn:
        return None
    change = {curve.name: curve.mean[-1] - curve.mean[0] for curve in drawn}
    return curve_figure(
        "across",
        drawn,
        title="Steps for the fastest gradients against the slowest: "
        + compared(change, "+.1f", "dB"),
        note="Weights in groups whose gradients change sign about as often: how long their steps "
        "are per unit of gradient, against the typical weight's of their tensor. Noise changes "
        "sign at every second step. A line that falls favours slow gradients, one that rises fast "
        "ones; 6 dB are twice as long. The groups go across tensors, and so may say otherwise than "
        f"the rate slope, which compares within them. {SETTLED}",
        x="changes of sign per step",
        y="step / gradient (dB)",
        references={"typical": 0},
    )
