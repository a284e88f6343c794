"""The response of every layer by frequency, as a heat map."""

from __future__ import annotations

import html
import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

import plotly.graph_objects as go

from bandwise.figures.curve import Points, finite
from bandwise.figures.figure import Figure, blank, wrapped
from bandwise.figures.instruments.gain import relative
from bandwise.figures.instruments.rows import (
    SETTLED,
    Runs,
    averaged,
    compared,
    decibels,
    quotient,
    settled,
)
from bandwise.lens.quantities.quantity import Row

# Blue and vermilion of the same palette as the lines, and what is between a dark and a white page.
_COLOURS = [[0, "#0072B2"], [0.5, "#d8d6d2"], [1, "#D55E00"]]
_COLUMNS = 4
_ROW, _GAP, _LETTER = 18, 70, 7  # in pixels


def layers(runs: Runs) -> Figure | None:
    """R(f) of every tensor, in decibels against its mean over frequencies, of first runs."""
    maps = {
        label: found
        for label, some in runs.items()
        if (found := next(filter(None, map(_tensors, some)), None))
    }
    emphasis = {
        f"{name}, {label}": fmean(levels)
        for label, found in maps.items()
        for name, some in found.items()
        if (levels := list(finite(enumerate(map(_emphasis, some))).values()))
    }
    if not emphasis:
        return None
    names = list(dict.fromkeys(name for found in maps.values() for name in found))
    columns = min(_COLUMNS, len(maps))
    rows = math.ceil(len(maps) / columns)
    area = rows * _ROW * len(names) + (rows - 1) * _GAP
    plot = blank(
        height=area + 110,
        labels=0,
        rows=rows,
        cols=columns,
        subplot_titles=["<br>".join(wrapped(label, 24)) for label in maps],
        shared_yaxes=True,
        horizontal_spacing=0.02,
        vertical_spacing=_GAP / area if rows > 1 else 0,
    )
    for place, found in enumerate(maps.values()):
        frequencies = sorted({f for some in found.values() for f in _curve(some)})
        curves = [_curve(found.get(name, [])) for name in names]
        plot.add_trace(
            go.Heatmap(
                x=frequencies,
                y=[html.escape(name) for name in names],
                z=[[curve.get(f) for f in frequencies] for curve in curves],
                coloraxis="coloraxis",
                hovertemplate="%{y}<br>%{x:.3f} cycles per step: %{z:.1f} dB<extra></extra>",
            ),
            row=place // columns + 1,
            col=place % columns + 1,
        )
    plot.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    plot.update_xaxes(title_text="cycles per step", row=rows)
    plot.update_layout(
        width=120 + _LETTER * max(map(len, names)) + 180 * columns,
        margin={"t": 48, "b": 50},
        coloraxis={"colorscale": _COLOURS, "cmid": 0, "colorbar": {"title": "dB", "thickness": 12}},
        hovermode="closest",
    )
    return Figure(
        "lens-layers",
        f"Low over high frequencies layer by layer: {compared(emphasis, '+.1f', 'dB')}",
        "Update over gradient of each tensor by temporal frequency, against the tensor's mean: "
        f"orange is passed more, blue less. Each optimizer's first seed. {SETTLED}",
        plot,
    )


def _tensors(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The settled rows of ``temporal`` of each tensor."""
    found = defaultdict(list)
    for row in rows:
        if row["quantity"] == "temporal" and row["tensor"] != "all":
            found[row["tensor"]].append(row)
    return {name: settled(some) for name, some in found.items()}


def _curve(rows: Sequence[Row]) -> Points:
    return averaged([relative(row, "response") for row in rows])


def _emphasis(row: Row) -> float | None:
    return decibels(quotient(row, "response_low", "response_high"))
