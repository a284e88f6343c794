"""Which frequencies of a function a model learns first: the spectral bias.

A task such as ``bandwise.tasks.sines.Sines`` reports ``val_error_k1``, ``val_error_k2``, …: an
error for each frequency k, relative to the amplitude that is to be learnt.
"""

import math
import re
from collections.abc import Sequence

from bandwise.figures.curves import Curve, Points, curves_of, finite
from bandwise.figures.figure import Figure
from bandwise.figures.instruments.instrument import curve_figure
from bandwise.figures.instruments.rows import Runs, rows_of, scalar
from bandwise.figures.words import plural
from bandwise.lens import Row

_ERROR = re.compile(r"val_error_k(\d+)")
_HALF = 0.5


def function_space(runs: Runs) -> Figure | None:
    """The first evaluation at which half of each frequency was learnt, over frequencies."""
    learnt = {
        label: [first for rows in some if (first := _half_learnt(rows))]
        for label, some in runs.items()
    }
    drawn = curves_of(learnt, lambda first: finite(first.items()))
    if not drawn:
        return None
    ks = sorted({k for curve in drawn for k in curve.x})
    note = (
        "The first evaluation at which no more than half of a frequency's amplitude was still "
        "missing, by its number of periods k. Lines that rise learn low frequencies first."
    )
    late = [
        f"{label}, k = {k:g} ({missed} of {len(some)})"
        for label, some in learnt.items()
        for k in (some[0] if some else ())
        if (missed := sum(math.isnan(first.get(k, math.nan)) for first in some))
    ]
    if late:
        note += f" Not half learnt in the run, with so many seeds: {'; '.join(late)}."
    x, y = "frequency of the function, k periods", "steps until half learnt"
    found = curve_figure("function-space", drawn, _title(drawn, ks), note, y, x=x, small=False)
    found.plot.update_xaxes(type="log", tickvals=ks, ticktext=[f"{k:g}" for k in ks])
    return found


def _title(drawn: Sequence[Curve], ks: Sequence[float]) -> str:
    """Who learns the highest frequency soonest, and who learns low frequencies first."""
    soonest, name = min((c.mean[c.x.index(ks[-1])], c.name) for c in drawn if ks[-1] in c.x)
    title = f"k = {ks[-1]:g} is half learnt soonest by {name} (step {soonest:,.0f})"
    if len(ks) == 1:
        return title
    first = [c.name for c in drawn if c.mean == sorted(c.mean) and c.mean[0] < c.mean[-1]]
    who = f"{len(first)} of {plural(len(drawn), 'optimizer')}"
    if len(drawn) <= 3:
        who = ", ".join(first) or "none"
    return f"Low frequencies of the function are learnt first by {who}; {title}"


def _half_learnt(rows: Sequence[Row]) -> Points:
    """The first step at which the error of each frequency was at most a half; NaN if none."""
    first: Points = {}
    for row in rows_of(rows, "evaluation"):
        for match in filter(None, map(_ERROR.fullmatch, row)):
            k = float(match[1])
            if math.isnan(first.setdefault(k, math.nan)) and scalar(row, match[0]) <= _HALF:
                first[k] = row["step"]
    return first
