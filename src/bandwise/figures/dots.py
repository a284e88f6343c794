"""A dot plot: a row for each optimizer, its values as dots, their mean with an interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from bandwise.figures.figure import BASELINE, blank, line, plotly_text, transparent

# How far an optimizer's mean lies below its dots. Rows are 1 apart.
_MEAN_BELOW = 0.3


@dataclass(frozen=True)
class Dots:
    """One optimizer's row. Words appear under the pointer."""

    index: int  # its place among those compared, which decides how it is drawn
    name: str
    values: Sequence[tuple[str, float]]  # a dot each: words and value
    mean: float | None  # a diamond
    interval: tuple[float, float] | None  # a bar through the mean
    words: str  # of the mean


def dot_plot(rows: Sequence[Dots], what: str, references: Mapping[str, float]) -> go.Figure:
    """The rows from top to bottom, over an axis named ``what`` with a line at each reference."""
    plot = blank(height=130 + 56 * len(rows), labels=0)
    for place, row in enumerate(rows):
        colour, count = line(row.index).colour, len(row.values)
        group = {"name": plotly_text(row.name), "legendgroup": str(row.index), "mode": "markers"}
        plot.add_scatter(
            x=[value for _, value in row.values],
            # Equal dots would hide each other, so each lies a little lower than the one before.
            y=[place + 0.3 * ((i + 1) / (count + 1) - 0.5) for i in range(count)],
            text=[words for words, _ in row.values],
            marker={"color": transparent(colour, 0.6), "size": 10},
            meta="values",
            **group,
        )
        if row.mean is None:
            continue
        bar = None
        if row.interval is not None:
            low, high = row.interval
            ends = {"array": [high - row.mean], "arrayminus": [row.mean - low]}
            bar = {**ends, "color": colour, "thickness": 2.5}
        plot.add_scatter(
            x=[row.mean],
            y=[place + _MEAN_BELOW],
            text=[row.words],
            marker={"color": colour, "symbol": "diamond", "size": 11},
            error_x=bar,
            meta="mean",
            **group,
        )
    plot.update_traces(hovertemplate="%{text}")
    plot.update_xaxes(title_text=plotly_text(what, 60))
    plot.update_yaxes(
        tickvals=[place + _MEAN_BELOW / 2 for place in range(len(rows))],
        ticktext=[plotly_text(row.name, 22) for row in rows],
        range=[len(rows) - 0.4, -0.6],
        fixedrange=True,
        showgrid=False,
    )
    for words, value in references.items():
        plot.add_vline(x=value, line={"color": BASELINE, "width": 3}, layer="below")
        plot.add_annotation(
            x=value, text=words, yref="paper", y=1, yanchor="bottom", showarrow=False
        )
    return plot.update_layout(showlegend=False, hovermode="closest", margin_t=56)
