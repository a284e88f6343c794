"""Curves of rows, and figures of curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bandwise.figures.curve import Curve, draw, ends, finite
from bandwise.figures.figure import BASELINE, Figure, blank
from bandwise.figures.instruments.rows import Runs, Value, compared, rows_of


def over_steps(runs: Runs, quantity: str, value: Value) -> list[Curve]:
    """A figure of the whole model over steps, for every label that has it."""
    found = []
    for index, (label, some) in enumerate(runs.items()):
        seeds = [finite((r["step"], value(r)) for r in rows_of(rows, quantity)) for rows in some]
        found.append(Curve.across(index, label, [points for points in seeds if points]))
    return [curve for curve in found if curve]


def curve_figure(
    name: str,
    drawn: Sequence[Curve],
    *,
    title: str,
    note: str,
    y: str,
    x: str = "step",
    references: Mapping[str, float] | None = None,
    small: bool = True,
) -> Figure | None:
    """Curves as a figure, with dotted lines at the named references; ``None`` without curves.

    Positive values that span more than two powers of ten get a logarithmic axis.
    """
    if not drawn:
        return None
    plot = blank(height=300 if small else 400, labels=len(drawn))
    for curve in drawn:
        draw(plot, curve, markers=True)
    for words, value in (references or {}).items():
        plot.add_hline(
            y=value,
            line={"color": BASELINE, "dash": "dot", "width": 1.5},
            annotation={"text": words, "font": {"size": 11}},
            annotation_position="top left",
            layer="below",
        )
    plot.update_xaxes(title_text=x)
    plot.update_yaxes(title_text=y)
    values = [value for curve in drawn for value in (*curve.low, *curve.high)]
    if min(values) > 0 and max(values) > 100 * min(values):
        plot.update_yaxes(type="log", dtick=1)
    return Figure(f"lens-{name}", title, note, plot, small=small)


def series(
    name: str,
    runs: Runs,
    quantity: str,
    value: Value,
    what: str,
    *,
    note: str,
    y: str,
    form: str = ".4g",
    references: Mapping[str, float] | None = None,
) -> Figure | None:
    """A figure of the whole model over steps, as a small figure; ``form`` is its title's."""
    drawn = over_steps(runs, quantity, value)
    title = f"{what}: {_course(drawn, form)}"
    return curve_figure(name, drawn, title=title, note=note, y=y, references=references)


def _course(drawn: Sequence[Curve], form: str) -> str:
    """How the curves end; where all are a single point, what they are there."""
    steps = {step for curve in drawn for step in curve.x}
    if len(steps) != 1:
        return ends(drawn, form)
    values = {curve.name: curve.mean[0] for curve in drawn}
    return f"{compared(values, form)}, at step {steps.pop():,} alone"
