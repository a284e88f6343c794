"""Curves over frequency: the gain G(f) of a single weight, and step length across weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bandwise.figures.curves import Curve, Points, curves_of, finite
from bandwise.figures.figure import Figure
from bandwise.figures.instruments.instrument import curve_figure
from bandwise.figures.instruments.rows import (
    SETTLED,
    Runs,
    averaged,
    by_frequency,
    decibels,
    means,
    ratio_in_decibels,
    scalars,
    windows,
)
from bandwise.figures.words import lowest_to_highest
from bandwise.lens import Row


def gain(runs: Runs) -> Figure | None:
    """G(f) in decibels against its geometric mean over frequencies, so that a flat gain is 0."""
    drawn = curves_of(
        runs, lambda rows: averaged([by_frequency(row, "gain") for row in windows(rows)]) or None
    )
    emphasis = means(runs, ratio_in_decibels("gain_low", "gain_high"), windows)
    if not emphasis:
        return None
    return curve_figure(
        "gain",
        drawn,
        title="Low over high frequencies of a single weight: "
        + lowest_to_highest(emphasis, "+.1f", "dB"),
        note="The gain from gradient to update of a single weight, by how fast the gradient "
        "changes. At frequency 0 the gradient keeps its value, at 0.5 it changes sign at every "
        "step. Above 0 dB the optimizer passes more than on average, below it less; 20 dB are ten "
        f"times. A flat line filters nothing. Momentum falls from left to right. {SETTLED}",
        x="temporal frequency (cycles per step)",
        y="gain against its mean (dB)",
        small=False,
    )


def across(runs: Runs) -> Figure | None:
    """``across_gain`` over ``across_rate``, for each group of coordinates the mean over windows."""
    drawn = []
    for index, (label, some) in enumerate(runs.items()):
        # Groups are matched by their order, for their rates differ between seeds.
        rates = _groups(some, "across_rate", float)
        levels = [_groups([rows], "across_gain", decibels) for rows in some]
        seeds = [{rates[group]: at[group] for group in at if group in rates} for at in levels]
        drawn.append(Curve.across(index, label, list(filter(None, seeds))))
    drawn = [curve for curve in drawn if curve]
    if not drawn:
        return None
    change = {curve.name: curve.mean[-1] - curve.mean[0] for curve in drawn}
    return curve_figure(
        "across",
        drawn,
        title="Steps for the fastest gradients against the slowest: "
        + lowest_to_highest(change, "+.1f", "dB"),
        note="Weights are grouped by how often their gradients change sign; noise changes sign at "
        "every second step. The line is the step length per unit of gradient, against that of the "
        "typical weight of the tensor; 6 dB are twice as long. A falling line favours slow "
        "gradients, a rising one fast gradients. Groups mix tensors and the rate slope does not, "
        f"so the two may differ. {SETTLED}",
        x="changes of sign per step",
        y="step / gradient (dB)",
        references={"typical": 0},
    )


def _groups(runs: Iterable[Sequence[Row]], key: str, read: Callable[[float], float]) -> Points:
    """A list over groups of coordinates, by the groups' order: its mean over windows."""
    return averaged(
        [finite(enumerate(map(read, scalars(row, key)))) for rows in runs for row in windows(rows)]
    )
