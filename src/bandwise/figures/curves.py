"""Values of optimizers along an axis: for each a mean line, and a band over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import plotly.graph_objects as go

from bandwise.figures.figure import BASELINE, blank, line, plotly_text, transparent
from bandwise.figures.words import number, plural

Points = dict[float, float]
_Run = TypeVar("_Run")


@dataclass(frozen=True)
class Curve:
    """A value of one optimizer along x, over its seeds.

    Seeds that diverged are kept apart in ``broken``: in the mean they would make a jump where they
    stop.

    Attributes:
        index: the optimizer's place among those compared, which decides how it is drawn.
        name: its label.
        seeds: how many seeds ``mean``, ``low`` and ``high`` are over.
        x: where each of those seeds has a finite value; most often steps.
        mean, low, high: over seeds, at each x.
        broken: for each diverged seed, its x and its finite values.
    """

    index: int
    name: str
    seeds: int
    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    broken: list[tuple[list[float], list[float]]] = field(default_factory=list)

    @classmethod
    def across(
        cls, index: int, name: str, seeds: Sequence[Points], broken: Iterable[Points] = ()
    ) -> Curve:
        """The curve of these seeds' values by x; ``broken`` are those of diverged seeds."""
        shared = [x for x in seeds[0] if all(x in values for values in seeds)] if seeds else []
        columns = [[values[x] for values in seeds] for x in shared]
        return cls(
            index=index,
            name=name,
            seeds=len(seeds),
            x=shared,
            mean=[statistics.fmean(column) for column in columns],
            low=[min(column) for column in columns],
            high=[max(column) for column in columns],
            broken=[(list(values), list(values.values())) for values in broken],
        )

    def __bool__(self) -> bool:
        """Whether there is anything to draw."""
        return bool(self.x) or any(x for x, _ in self.broken)


def finite(pairs: Iterable[tuple[float, float | None]]) -> Points:
    """The finite values, by x."""
    return {x: value for x, value in pairs if value is not None and math.isfinite(value)}


def curves_of(
    runs: Mapping[str, Iterable[_Run]],
    points: Callable[[_Run], Points | None],
    diverged: Callable[[_Run], bool] = lambda run: False,
) -> list[Curve]:
    """For each label the curve over its runs; a run whose points are ``None`` is left out."""
    found = []
    for index, (label, some) in enumerate(runs.items()):
        each = [(at, diverged(run)) for run in some if (at := points(run)) is not None]
        whole = [at for at, lost in each if not lost]
        broken = [at for at, lost in each if lost]
        found.append(Curve.across(index, label, whole, broken))
    return [curve for curve in found if curve]


def curve_plot(
    drawn: Sequence[Curve],
    *,
    x: str,
    y: str,
    height: int,
    legend: bool = True,
    markers: bool = True,
    references: Mapping[str, float] | None = None,
) -> go.Figure:
    """Curves over named axes, with a dotted line at each named reference.

    Args:
        drawn: the curves.
        x: the name of the axis.
        y: the name of the other axis.
        height: in pixels, if the legend is short.
        legend: whether there is a legend.
        markers: whether points are marked where a curve has few.
        references: values of y by name.
    """
    plot = blank(height, labels=len(drawn) if legend else 0)
    for curve in drawn:
        draw(plot, curve, markers)
    for words, value in (references or {}).items():
        plot.add_hline(
            y=value,
            line={"color": BASELINE, "dash": "dot", "width": 1.5},
            annotation={"text": words, "font": {"size": 11}},
            annotation_position="top left",
            layer="below",
        )
    plot.update_xaxes(title_text=plotly_text(x))
    plot.update_yaxes(title_text=plotly_text(y))
    # The title names a curve that is alone.
    plot.update_layout(showlegend=legend and len(drawn) > 1)
    return plot


def draw(plot: go.Figure, curve: Curve, markers: bool) -> None:
    """Add the band, the mean line and the diverged seeds. One click in the legend hides all."""
    style = line(curve.index)
    name = plotly_text(curve.name)
    if curve.broken:
        runs = curve.seeds + len(curve.broken)
        name += f" ({len(curve.broken)} of {plural(runs, 'seed')} diverged)"
    group = {"name": name, "legendgroup": str(curve.index)}
    if curve.seeds > 1:
        plot.add_scatter(
            x=curve.x + curve.x[::-1],
            y=curve.high + curve.low[::-1],
            fill="toself",
            fillcolor=transparent(style.colour),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
            meta="band",
            **group,
        )
    between = " (%{customdata[0]:.5~g} to %{customdata[1]:.5~g})" if curve.seeds > 1 else ""
    if curve.x:
        plot.add_scatter(
            x=curve.x,
            y=curve.mean,
            customdata=[list(pair) for pair in zip(curve.low, curve.high, strict=True)],
            mode="lines+markers" if markers and len(curve.x) <= 60 else "lines",
            line={"color": style.colour, "dash": style.dash, "width": style.width},
            marker={"size": 5},
            hovertemplate=f"%{{y:.5~g}}{between}",
            meta="mean",
            **group,
        )
    for i, (x, values) in enumerate(curve.broken):
        plot.add_scatter(
            x=x,
            y=values,
            mode="lines+markers",
            line={"color": style.colour, "dash": style.dash, "width": 1},
            # Only the last value before the divergence is marked.
            marker={"symbol": "x", "size": [0] * (len(x) - 1) + [10]},
            hovertemplate="%{y:.5~g}, diverged later",
            showlegend=not curve.x and i == 0,
            meta="diverged",
            **group,
        )


def ends(drawn: Sequence[Curve], form: str = ".4g") -> str:
    """How the curves end, in words."""
    last = sorted((curve.mean[-1], curve.name) for curve in drawn if curve.x)
    if not last:
        return "every run diverged"
    (low, lowest), (high, highest) = last[0], last[-1]
    if len(last) == 1:
        first = next(curve for curve in drawn if curve.x).mean[0]
        return f"{lowest} goes from {number(first, form)} to {number(low, form)}"
    if number(low, form) == number(high, form):
        return f"all end at {number(low, form)}"
    return f"{lowest} ends lowest ({number(low, form)}), {highest} highest ({number(high, form)})"
