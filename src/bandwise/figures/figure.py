"""What all figures share: how an optimizer is drawn, and an empty figure that suits the page.

Plotly reads some HTML in names and titles, so every name the user chose is escaped on its way in.
"""

from __future__ import annotations

import html
import textwrap
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

# Okabe and Ito's colours for every kind of colour vision, less black and yellow, which vanish on
# a dark or a white page. The baseline is grey. Six colours and five dashes share no divisor, so
# that thirty optimizers differ in the pair and neighbours in both.
BASELINE = "#808890"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("solid", "8px,4px", "2px,3px", "9px,3px,2px,3px", "14px,5px")


@dataclass(frozen=True)
class Figure:
    """A figure and the words around it.

    Attributes:
        id: unique on the page.
        title: what is seen, in words.
        note: how to read it.
        plot: the figure itself.
        views: changes of the layout that the page offers as buttons, by what the button says. The
            first is how the figure starts.
        small: whether it may stand beside others.
    """

    id: str
    title: str
    note: str
    plot: go.Figure
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    small: bool = False


@dataclass(frozen=True)
class Line:
    """How an optimizer is drawn, everywhere."""

    colour: str
    dash: str
    width: float


def line(index: int) -> Line:
    """The line of the optimizer in a row of ``Results.comparisons``; the baseline is row 0."""
    if index == 0:
        return Line(BASELINE, _DASHES[0], 3)
    return Line(_COLOURS[(index - 1) % len(_COLOURS)], _DASHES[(index - 1) % len(_DASHES)], 2)


def blank(height: int, labels: int, **panels: Any) -> go.Figure:
    """A figure with axes and no colours of its own: the page's style colours text and grid.

    Args:
        height: in pixels, of a figure whose legend is short.
        labels: how many names the legend has.
        panels: what ``plotly.subplots.make_subplots`` takes, for a figure of several panels.
    """
    plot = go.Figure()
    if panels:
        plot.set_subplots(**panels)
        plot.update_annotations(font_size=13)
    plot.update_layout(
        template=None,
        # A legend of many names needs room that the curves must not pay for.
        height=height + 12 * max(0, labels - 3),
        margin={"l": 8, "r": 16, "t": 12, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#444"},
        hovermode="x unified" if labels <= 6 else "closest",
        hoverlabel={"namelength": -1},
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "traceorder": "normal",
            "itemdoubleclick": False,
        },
    )
    axis = {
        "automargin": True,
        "title_font_size": 13,
        "showline": False,
        "zeroline": False,
        "gridcolor": "#ccc",
    }
    plot.update_xaxes(
        **axis,
        showgrid=False,
        ticks="outside",
        tickcolor="#888",
    )
    plot.update_yaxes(**axis)
    return plot


def start_in(plot: go.Figure, view: dict[str, Any]) -> None:
    """Start the figure in a view."""
    plot.update_layout({key.replace(".", "_"): value for key, value in view.items()})


def wrapped(label: str, width: int) -> list[str]:
    """The label in lines, escaped after it is cut: an entity must stay whole."""
    return [html.escape(part) for part in textwrap.wrap(label, width)] or [""]


def transparent(colour: str, opacity: float = 0.16) -> str:
    """A colour of the form ``#rrggbb`` that lets others shine through."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"
