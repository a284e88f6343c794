"""The gain G(f): which temporal frequencies an optimizer passes within a coordinate."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bandwise.figures.curve import Curve, Points, finite
from bandwise.figures.figure import Figure
from bandwise.figures.instruments.curves import curve_figure
from bandwise.figures.instruments.rows import (
    SETTLED,
    Runs,
    averaged,
    compared,
    decibels,
    means,
    quotient,
    windows,
)
from bandwise.lens.quantities.quantity import Row


def gain(runs: Runs) -> Figure | None:
    """G(f) in decibels against its geometric mean over frequencies, so that a flat gain is 0."""
    drawn = []
    for index, (label, some) in enumerate(runs.items()):
        seeds = [averaged([relative(row, "gain") for row in windows(rows)]) for rows in some]
        drawn.append(Curve.across(index, label, [points for points in seeds if points]))
    emphasis = means(runs, lambda row: decibels(quotient(row, "gain_low", "gain_high")), windows)
    if not emphasis:
        return None
    return curve_figure(
        "gain",
        [curve for curve in drawn if curve],
        title="Low over high frequencies of a single weight: " + compared(emphasis, "+.1f", "dB"),
        note="The gain from gradient to update of a single weight, by how fast the gradient "
        "changes: at frequency 0 it keeps its value, at 0.5 it changes sign at every step. Above "
        "0 dB the optimizer passes more than on average, below it less; 20 dB are ten times. A "
        f"flat line filters nothing; momentum is the fall from left to right. {SETTLED}",
        x="temporal frequency (cycles per step)",
        y="gain against its mean (dB)",
        small=False,
    )


def relative(row: Row, key: str) -> Points:
    """A list over ``frequency`` in decibels, less its mean over frequencies."""
    values: Sequence[float | None] = row[key]
    levels = finite(zip(row["frequency"], map(decibels, values), strict=True))
    return {f: level - statistics.fmean(levels.values()) for f, level in levels.items()}
