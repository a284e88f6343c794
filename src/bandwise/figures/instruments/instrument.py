"""What an instrument is: it draws one figure from what lenses measured, and measures nothing.

An instrument is a function from ``Runs`` to a ``Figure``, or to ``None`` where the rows hold
nothing for it. Most are an ``Instrument``: a value over steps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bandwise.figures.curves import Curve, curve_plot, curves_of, ends, finite
from bandwise.figures.figure import BASELINE, Figure
from bandwise.figures.instruments.rows import Runs, Value, rows_of
from bandwise.figures.words import lowest_to_highest


@dataclass(frozen=True)
class Instrument:
    """Draws one value of the whole model over steps."""

    name: str  # the figure's id, without "lens-" before it
    title: str  # how the figure's title begins
    quantity: str  # whose rows are drawn
    value: Value
    y: str  # the name of the axis
    note: str
    form: str = ".4g"  # the format of values in the title
    references: Callable[[Runs], Mapping[str, float]] = lambda runs: {}  # dotted lines by name

    def __call__(self, runs: Runs) -> Figure | None:
        """The figure; ``None`` if no row has the value."""
        drawn = over_steps(runs, self.quantity, self.value)
        if not drawn:
            return None
        steps = {step for curve in drawn for step in curve.x}
        course = ends(drawn, self.form)
        if len(steps) == 1:
            values = {curve.name: curve.mean[0] for curve in drawn}
            course = f"{lowest_to_highest(values, self.form)}, at step {steps.pop():,} alone"
        title, references = f"{self.title}: {course}", self.references(runs)
        return curve_figure(self.name, drawn, title, self.note, self.y, references)


def over_steps(runs: Runs, quantity: str, value: Value) -> list[Curve]:
    """A value of the whole model over steps, for every label that has it."""
    return curves_of(
        runs,
        lambda rows: finite((row["step"], value(row)) for row in rows_of(rows, quantity)) or None,
    )


def curve_figure(
    name: str,
    drawn: Sequence[Curve],
    title: str,
    note: str,
    y: str,
    references: Mapping[str, float] | None = None,
    x: str = "step",
    small: bool = True,
) -> Figure:
    """Curves as a figure of the lens, with dotted lines as references.

    The axis is logarithmic if the values are positive and span more than two powers of ten.
    """
    plot = curve_plot(drawn, x=x, y=y, height=300 if small else 400)
    for words, value in (references or {}).items():
        plot.add_hline(
            y=value,
            line={"color": BASELINE, "dash": "dot", "width": 1.5},
            annotation={"text": words, "font": {"size": 11}},
            annotation_position="top left",
            layer="below",
        )
    values = [value for curve in drawn for value in curve.reach()]
    if min(values) > 0 and max(values) > 100 * min(values):
        plot.update_yaxes(type="log", dtick=1)
    return Figure(f"lens-{name}", title, note, plot, small=small)
