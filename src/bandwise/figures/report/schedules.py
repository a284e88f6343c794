"""What was scheduled: the learning rate, and the values of optimizers that have their own."""

from __future__ import annotations

import dataclasses

from bandwise.figures.curve import Curve, draw
from bandwise.figures.figure import Figure, blank
from bandwise.figures.report.curves import logged
from bandwise.figures.words import number
from bandwise.study.results import Results

# Scheduled values: how an axis calls them, and what they are.
_SCHEDULES = {
    "lr": ("Learning rate", "The step size that the optimizer was given."),
    "alpha": (
        "\N{GREEK SMALL LETTER ALPHA} of SMI",
        "The share of the filtered gradient in an SMI step: at 0 nothing is filtered, at 1 only "
        "the strong frequencies of the gradient are left.",
    ),
    "p": (
        "p of NSF",
        "The exponent of the second moment in an NSF step: ½ is Adam, 0 is momentum SGD, and below "
        "0 what Adam damps is amplified. As logged: a cycle shorter than the gap between two rows "
        "is not seen whole.",
    ),
}

_EVERY = "every optimizer"


def schedule_figure(results: Results, key: str) -> Figure | None:
    """A scheduled value over steps; one line if every optimizer has the same."""
    drawn = []
    for index, row in enumerate(results.comparisons):
        # A schedule depends on the step alone: the run that went furthest shows all of it.
        rows = max((run.training for run in results.runs_of(row.optimizer)), key=len, default=[])
        drawn.append(Curve.across(index, row.optimizer, [logged(rows, key)]))
    drawn = [curve for curve in drawn if curve]
    if not drawn:
        return None
    longest = max(drawn, key=lambda curve: len(curve.x))
    if len(drawn) == len(results.comparisons) > 1 and all(
        curve.mean == longest.mean[: len(curve.x)] for curve in drawn
    ):
        drawn = [dataclasses.replace(longest, index=0, name=_EVERY)]
    plot = blank(height=300, labels=len(drawn))
    for curve in drawn:
        draw(plot, curve, markers=False)
    if drawn[0].name == _EVERY:
        # Hiding the baseline, whose grey it has, must not hide it.
        plot.update_traces(legendgroup=_EVERY)
    what, note = _SCHEDULES[key]
    plot.update_xaxes(title_text="step", range=[-0.01 * results.steps, 1.02 * results.steps])
    plot.update_yaxes(title_text=what)
    plot.update_layout(showlegend=len(drawn) > 1)
    seen = "; ".join(f"{curve.name} {_path(curve)}" for curve in drawn)
    if len(drawn) > 3:
        values = [value for curve in drawn for value in curve.mean]
        seen = f"{len(drawn)} optimizers between {number(min(values))} and {number(max(values))}"
    return Figure(f"schedule-{key}", f"{what}: {seen}", note, plot, small=True)


def _path(curve: Curve) -> str:
    """How a schedule runs, in words."""
    values = curve.mean
    low, high, last = (
        number(min(values)),
        number(max(values)),
        number(values[-1]),
    )
    if low == high:
        return f"stays at {low}"
    if values == sorted(values):
        return f"rises from {low} to {high}"
    if values == sorted(values, reverse=True):
        return f"falls from {high} to {low}"
    peak = values.index(max(values))
    if values == sorted(values[:peak]) + sorted(values[peak:], reverse=True):
        return f"rises to {high}, then falls to {last}"
    return f"goes back and forth between {low} and {high}"
