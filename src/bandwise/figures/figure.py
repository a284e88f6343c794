"""What a figure is, how each optimizer is drawn, and an empty plot that suits the page.

Plotly reads HTML in names and titles. ``plotly_text`` escapes the names that the user chose.
"""

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go
from plotly.colors import hex_to_rgb

# The colours of Okabe and Ito, which every kind of colour vision can tell apart. Black and yellow
# are left out: they vanish on a dark or a white page. The baseline is grey. Six and five share no
# divisor, so thirty optimizers differ in their pair of colour and dash.
BASELINE = "#808890"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("solid", "8px,4px", "2px,3px", "9px,3px,2px,3px", "14px,5px")


@dataclass(frozen=True)
class Figure:
    """A figure and the words around it.

    Attributes:
        id: unique on the page.
        title: what the figure shows, in words.
        note: how to read it.
        plot: the plotly figure.
        views: changes of the plot's layout, by name. The plot starts in the first. Where there are
            several, the page has a button for each.
        small: whether it may stand beside another figure.
    """

    id: str
    title: str
    note: str
    plot: go.Figure
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    small: bool = False

    def __post_init__(self) -> None:
        for view in list(self.views.values())[:1]:
            self.plot.update_layout(view)


@dataclass(frozen=True)
class Line:
    """How an optimizer is drawn, in every figure."""

    colour: str
    dash: str
    width: float


def line(index: int) -> Line:
    """The line of the optimizer at a place among those compared; place 0 is the baseline."""
    if index == 0:
        return Line(BASELINE, _DASHES[0], 3)
    return Line(_COLOURS[(index - 1) % len(_COLOURS)], _DASHES[(index - 1) % len(_DASHES)], 2)


def blank(height: int, labels: int, **panels: Any) -> go.Figure:
    """A plot with axes alone, of a height in pixels for a legend of few ``labels``.

    The page's style colours its text and grid. ``panels`` are the arguments of
    ``plotly.subplots.make_subplots``.
    """
    plot = go.Figure()
    if panels:
        plot.set_subplots(**panels)
        plot.update_annotations(font_size=13)
    plot.update_layout(
        template=None,
        # A legend of many names must not take room from the curves.
        height=height + 12 * max(0, labels - 3),
        margin={"l": 8, "r": 16, "t": 12, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#444"},
        hovermode="x unified" if labels <= 6 else "closest",
        hoverlabel_namelength=-1,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        legend_traceorder="normal",
        legend_itemdoubleclick=False,
    )
    axis = {"automargin": True, "title_font_size": 13, "zeroline": False, "gridcolor": "#ccc"}
    plot.update_xaxes(**axis, showgrid=False, ticks="outside", tickcolor="#888")
    plot.update_yaxes(**axis)
    return plot


def plotly_text(text: str, width: int | None = None) -> str:
    """Text that plotly shows as it is, in lines of at most ``width`` characters."""
    # Each line is escaped after the text is cut: an entity must stay whole.
    lines = [text] if width is None else textwrap.wrap(text, width)
    return "<br>".join(html.escape(line) for line in lines)


def transparent(colour: str, opacity: float = 0.16) -> str:
    """The colour ``#rrggbb`` with an opacity."""
    red, green, blue = hex_to_rgb(colour)
    return f"rgba({red},{green},{blue},{opacity})"


def padded(values: Sequence[float], share: float) -> list[float]:
    """The range of an axis that holds the values, wider by a share of it at both ends."""
    margin = share * (max(values) - min(values)) or 1.0
    return [min(values) - margin, max(values) + margin]
