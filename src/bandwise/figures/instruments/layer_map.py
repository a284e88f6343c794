"""The response of every layer by frequency, as a heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import plotly.graph_objects as go

from bandwise.figures.figure import Figure, blank, plotly_text
from bandwise.figures.instruments.rows import (
    SETTLED,
    Runs,
    averaged,
    by_frequency,
    first_runs,
    known,
    ratio_in_decibels,
    windows,
)
from bandwise.figures.words import lowest_to_highest
from bandwise.lens import Row

# Two colours of the lines, and between them a grey that suits a dark page and a white one.
_COLOURS = [[0, "#0072B2"], [0.5, "#d8d6d2"], [1, "#D55E00"]]
_COLUMNS = 4
_ROW, _GAP, _LETTER = 18, 70, 7  # in pixels


def layer_map(runs: Runs) -> Figure | None:
    """R(f) of every tensor in each label's first run, in decibels against its mean over f."""
    maps = first_runs(runs, _tensors)
    emphasis = {
        f"{name}, {label}": fmean(levels)
        for label, found in maps.items()
        for name, some in found.items()
        if (levels := known(ratio_in_decibels("response_low", "response_high"), some))
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
        subplot_titles=[plotly_text(label, 24) for label in maps],
        shared_yaxes=True,
        horizontal_spacing=0.02,
        vertical_spacing=_GAP / area if rows > 1 else 0,
    )
    for place, found in enumerate(maps.values()):
        windowed = [[by_frequency(row, "response") for row in found.get(n, [])] for n in names]
        curves = list(map(averaged, windowed))
        frequencies = sorted({f for curve in curves for f in curve})
        plot.add_trace(
            go.Heatmap(
                x=frequencies,
                y=[plotly_text(name) for name in names],
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
        f"Low over high frequencies layer by layer: {lowest_to_highest(emphasis, '+.1f', 'dB')}",
        "Update over gradient of each tensor by temporal frequency, against the tensor's mean: "
        f"orange is passed more, blue less. Each optimizer's first seed. {SETTLED}",
        plot,
    )


def _tensors(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The settled rows of ``temporal``, by tensor."""
    names = dict.fromkeys(row["tensor"] for row in rows if row["quantity"] == "temporal")
    return {name: windows(rows, name) for name in names if name != "all"}
