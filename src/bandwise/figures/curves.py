"""Values of optimizers along an axis: for each a mean line, and a band over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import plotly.graph_objects as go

from bandwise.figures.figure import blank, line, plotly_text, transparent
from bandwise.figures.words import number, plural

Points = dict[float, float]
_Run = TypeVar("_Run")


@dataclass(frozen=True)
class Curve:
    """A value of one optimizer along x, over its seeds.

    Seeds that diverged are kept apart: in the mean they would make a jump where they stop.
    """

    index: int  # the optimizer's place among those compared, which decides how it is drawn
    name: str
    seeds: int  # how many the mean is over
    x: list[float]  # where each of those seeds has a finite value; most often steps
    mean: list[float]
    low: list[float]
    high: list[float]
    broken: list[Points]  # the values of each diverged seed

    @classmethod
    def across(
        cls, index: int, name: str, seeds: Sequence[Points], broken: Iterable[Points] = ()
    ) -> Curve:
        """The curve of these seeds' values by x; ``broken`` are those of diverged seeds."""
        columns = shared(seeds)
        low, high = (list(map(end, columns.values())) for end in (min, max))
        mean = list(map(statistics.fmean, columns.values()))
        return cls(index, name, len(seeds), list(columns), mean, low, high, list(broken))

    def __bool__(self) -> bool:
        """Whether there is anything to draw."""
        return any([self.x, *self.broken])

    @property
    def lost(self) -> str:
        """How many seeds diverged, in words; empty if none did."""
        runs = self.seeds + len(self.broken)
        return f"{len(self.broken)} of {plural(runs, 'seed')}" if self.broken else ""

    def reach(self, start: float = -math.inf) -> list[float]:
        """The lowest and highest values from an x on."""
        band = zip(self.x, self.low, self.high, strict=True)
        return [end for x, *both in band if x >= start for end in both]


def finite(pairs: Iterable[tuple[float, float]]) -> Points:
    """The finite values, by x."""
    return {x: value for x, value in pairs if math.isfinite(value)}


def shared(curves: Sequence[Points]) -> dict[float, list[float]]:
    """The values of all curves, by each x that all of them have."""
    every = curves[0] if curves else {}
    return {x: [c[x] for c in curves] for x in every if all(x in c for c in curves)}


def curves_of(
    runs: Mapping[str, Sequence[_Run]],
    points: Callable[[_Run], Points | None],
    diverged: Callable[[_Run], bool] = lambda run: False,
) -> list[Curve]:
    """For each label the curve over its runs; a run whose points are ``None`` is left out."""
    found = []
    for index, (label, some) in enumerate(runs.items()):
        each = [(at, diverged(run)) for run in some if (at := points(run)) is not None]
        whole, broken = ([at for at, lost in each if lost == gone] for gone in (False, True))
        found.append(Curve.across(index, label, whole, broken))
    return list(filter(None, found))


def curve_plot(
    drawn: Sequence[Curve],
    *,
    x: str,
    y: str,
    height: int,
    legend: bool = True,
    markers: bool = True,
) -> go.Figure:
    """Curves over named axes. A curve that is alone needs no legend: the title names it.

    Markers show where a curve has few points.
    """
    plot = blank(height, labels=len(drawn) if legend else 0)
    for curve in drawn:
        draw(plot, curve, markers)
    plot.update_xaxes(title_text=plotly_text(x))
    plot.update_yaxes(title_text=plotly_text(y))
    return plot.update_layout(showlegend=legend and len(drawn) > 1)


def draw(plot: go.Figure, curve: Curve, markers: bool) -> None:
    """Add the band, the mean line and the diverged seeds. One click in the legend hides all."""
    style = line(curve.index)
    look = {"color": style.colour, "dash": style.dash}
    name = plotly_text(curve.name) + (f" ({curve.lost} diverged)" if curve.lost else "")
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
            line={**look, "width": style.width},
            marker={"size": 5},
            hovertemplate=f"%{{y:.5~g}}{between}",
            meta="mean",
            **group,
        )
    for i, points in enumerate(curve.broken):
        plot.add_scatter(
            x=list(points),
            y=list(points.values()),
            mode="lines+markers",
            line={**look, "width": 1},
            # Only the last value before the divergence is marked.
            marker={"symbol": "x", "size": [0] * (len(points) - 1) + [10]},
            hovertemplate="%{y:.5~g}, diverged later",
            showlegend=not curve.x and i == 0,
            meta="diverged",
            **group,
        )


def ends(drawn: Sequence[Curve], form: str = ".4g") -> str:
    """How the curves end, in words."""
    last = sorted((curve.mean[-1], curve.name, curve.mean[0]) for curve in drawn if curve.x)
    if not last:
        return "every run diverged"
    (low, lowest, first), (high, highest, _) = last[0], last[-1]
    least, most = number(low, form), number(high, form)
    if len(last) == 1:
        return f"{lowest} goes from {number(first, form)} to {least}"
    if least == most:
        return f"all end at {least}"
    return f"{lowest} ends lowest ({least}), {highest} highest ({most})"
