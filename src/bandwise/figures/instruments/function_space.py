"""Which frequencies of a function a model learns first: the spectral bias.

The errors are those of a task that reports one for each frequency k, as
``bandwise.tasks.sines.Sines`` does: rows of quantity ``"evaluation"`` with ``val_error_k1``,
``val_error_k2``, …, each relative to the amplitude that is to be learnt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bandwise.figures.curve import Curve, Points
from bandwise.figures.figure import Figure
from bandwise.figures.instruments.curves import curve_figure
from bandwise.figures.instruments.rows import Runs, rows_of
from bandwise.figures.words import plural
from bandwise.lens.quantities.quantity import Row

_ERROR = re.compile(r"val_error_k(\d+)")
HALF = 0.5


def function_space(runs: Runs) -> Figure | None:
    """The first evaluation at which half of each frequency was learnt, over frequencies."""
    drawn: list[Curve] = []
    late = []
    for index, (label, some) in enumerate(runs.items()):
        seeds = [half_learnt(rows) for rows in some]
        seeds = [points for points in seeds if points]
        drawn.append(Curve.across(index, label, [_reached(points) for points in seeds]))
        missed = {k: sum(p.get(k) is None for p in seeds) for k in (seeds[0] if seeds else ())}
        late += [f"{label}, k = {k:g} ({n} of {len(seeds)})" for k, n in missed.items() if n]
    drawn = [curve for curve in drawn if curve]
    if not drawn:
        return None
    ks = sorted({k for curve in drawn for k in curve.x})
    soonest, name = min((c.mean[c.x.index(ks[-1])], c.name) for c in drawn if ks[-1] in c.x)
    title = f"k = {ks[-1]:g} is half learnt soonest by {name} (step {soonest:,.0f})"
    if len(ks) > 1:
        first = [c.name for c in drawn if c.mean == sorted(c.mean) and c.mean[0] < c.mean[-1]]
        who = f"{len(first)} of {plural(len(drawn), 'optimizer')}"
        if len(drawn) <= 3:
            who = ", ".join(first) or "none"
        title = f"Low frequencies of the function are learnt first by {who}; {title}"
    note = (
        "The first evaluation at which no more than half of a frequency's amplitude was still "
        "missing, by its number of periods k. Lines that rise learn low frequencies first."
    )
    if late:
        note += f" Not half learnt in the run, with so many seeds: {'; '.join(late)}."
    figure = curve_figure(
        "function-space",
        drawn,
        title=title,
        note=note,
        x="frequency of the function, k periods",
        y="steps until half learnt",
        small=False,
    )
    if figure:
        figure.plot.update_xaxes(type="log", tickvals=ks, ticktext=[f"{k:g}" for k in ks])
    return figure


def half_learnt(rows: Sequence[Row]) -> dict[float, float | None]:
    """The first step at which the error of each frequency was at most a half; ``None`` if none."""
    first: dict[float, float | None] = {}
    for row in rows_of(rows, "evaluation"):
        for key, error in row.items():
            if match := _ERROR.fullmatch(key):
                k = float(match[1])
                first.setdefault(k, None)
                if first[k] is None and error is not None and error <= HALF:
                    first[k] = row["step"]
    return first


def _reached(first: dict[float, float | None]) -> Points:
    return {k: step for k, step in first.items() if step is not None}
