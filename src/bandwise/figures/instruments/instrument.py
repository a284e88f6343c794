"""What an instrument is: it draws one figure from what lenses measured, and measures nothing.

An instrument is a function from ``Runs`` to a ``Figure``, or to ``None`` where the rows hold
nothing for it. Most are an ``Instrument``: a value over steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bandwise.figures.curves import Curve, Points, curve_plot, curves_of, ends, finite
from bandwise.figures.figure import Figure
from bandwise.figures.instruments.rows import Runs, Value, rows_of
from bandwise.figures.words import lowest_to_highest
from bandwise.lens import Row


@dataclass(frozen=True)
class Instrument:
    """Draws one value of the whole model over steps.

    Attributes:
        name: the figure's id, without ``lens-`` before it.
        title: how the figure's title begins.
        quantity: whose rows are drawn.
        value: what is read from a row.
        y: the name of the axis.
        note: how to read the figure.
        form: the format of values in the title.
        references: dotted lines by name, or a function that finds them from the rows.
    """

    name: str
    title: str
    quantity: str
    value: Value
    y: str
    note: str
    form: str = ".4g"
    references: Mapping[str, float] | Callable[[Runs], Mapping[str, float]] = field(
        default_factory=dict
    )

    def __call__(self, runs: Runs) -> Figure | None:
        """The figure; ``None`` if no row has the value."""
        drawn = over_steps(runs, self.quantity, self.value)
        references = self.references(runs) if callable(self.references) else self.references
        title = f"{self.title}: {self._course(drawn)}"
        return curve_figure(
            self.name, drawn, title=title, note=self.note, y=self.y, references=references
        )

    def _course(self, drawn: Sequence[Curve]) -> str:
        """How the curves end; their values if all are at one step."""
        steps = {step for curve in drawn for step in curve.x}
        if len(steps) != 1:
            return ends(drawn, self.form)
        values = {curve.name: curve.mean[0] for curve in drawn}
        return f"{lowest_to_highest(values, self.form)}, at step {steps.pop():,} alone"


def over_steps(runs: Runs, quantity: str, value: Value) -> list[Curve]:
    """A value of the whole model over steps, for every label that has it."""

    def points(rows: Sequence[Row]) -> Points | None:
        return finite((row["step"], value(row)) for row in rows_of(rows, quantity)) or None

    return curves_of(runs, points)


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
    """Curves as a figure of the lens; ``None`` without curves.

    The axis is logarithmic if the values are positive and span more than two powers of ten.
    """
    if not drawn:
        return None
    height = 300 if small else 400
    plot = curve_plot(drawn, x=x, y=y, height=height, references=references)
    values = [value for curve in drawn for value in (*curve.low, *curve.high)]
    if min(values) > 0 and max(values) > 100 * min(values):
        plot.update_yaxes(type="log", dtick=1)
    return Figure(f"lens-{name}", title, note, plot, small=small)
