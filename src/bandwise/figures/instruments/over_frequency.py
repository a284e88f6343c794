"""Over frequency: the gain of a weight, the steps across weights, the response of every layer."""

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

from bandwise.figures.curves import Curve, Points, curves_of, finite
from bandwise.figures.figure import Figure, blank, plotly_text
from bandwise.figures.instruments.instrument import curve_figure
from bandwise.figures.instruments.rows import (
    SETTLED,
    Runs,
    Value,
    averaged,
    decibels,
    first_runs,
    known,
    means,
    scalars,
    windows,
)
from bandwise.figures.words import lowest_to_highest
from bandwise.lens import Row

# Two colours of the lines, and between them a grey that suits a dark page and a white one.
_COLOURS = [[0, "#0072B2"], [0.5, "#d8d6d2"], [1, "#D55E00"]]
_COLUMNS = 4
_ROW, _GAP, _LETTER = 18, 70, 7  # in pixels


def gain(runs: Runs) -> Figure | None:
    """G(f) in decibels against its geometric mean over frequencies, so that a flat gain is 0."""
    drawn = curves_of(runs, lambda rows: _relative(windows(rows), "gain") or None)
    emphasis = means(runs, Value("gain_low", "gain_high", decibels=True), windows)
    if not drawn or not emphasis:
        return None
    return curve_figure(
        "gain",
        drawn,
        "Low over high frequencies of a single weight: "
        + lowest_to_highest(emphasis, "+.1f", "dB"),
        "The gain from gradient to update of a single weight, by how fast the gradient changes. "
        "At frequency 0 the gradient keeps its value, at 0.5 it changes sign at every step. Above "
        "0 dB the optimizer passes more than on average, below it less; 20 dB are ten times. A "
        f"flat line filters nothing. Momentum falls from left to right. {SETTLED}",
        y="gain against its mean (dB)",
        x="temporal frequency (cycles per step)",
        small=False,
    )


def across(runs: Runs) -> Figure | None:
    """``across_gain`` over ``across_rate``, for each group of coordinates the mean over windows."""
    drawn = []
    for index, (label, some) in enumerate(runs.items()):
        # Groups are matched by their order, for their rates differ between seeds.
        rates = _groups(some, "across_rate", float)
        levels = [_groups([rows], "across_gain", decibels) for rows in some]
        seeds = [{rates[group]: at[group] for group in at if group in rates} for at in levels]
        if curve := Curve.across(index, label, list(filter(None, seeds))):
            drawn.append(curve)
    if not drawn:
        return None
    change = {curve.name: curve.mean[-1] - curve.mean[0] for curve in drawn}
    return curve_figure(
        "across",
        drawn,
        "Steps for the fastest gradients against the slowest: "
        + lowest_to_highest(change, "+.1f", "dB"),
        "Weights are grouped by how often their gradients change sign; noise changes sign at every "
        "second step. The line is the step length per unit of gradient, against that of the "
        "typical weight of the tensor; 6 dB are twice as long. A falling line favours slow "
        "gradients, a rising one fast gradients. Groups mix tensors and the rate slope does not, "
        f"so the two may differ. {SETTLED}",
        y="step / gradient (dB)",
        references={"typical": 0},
        x="changes of sign per step",
    )


def _groups(runs: Iterable[Sequence[Row]], key: str, read: Callable[[float], float]) -> Points:
    """A list over groups of coordinates, by the groups' order: its mean over windows."""
    return averaged(
        [finite(enumerate(map(read, scalars(row, key)))) for rows in runs for row in windows(rows)]
    )


def layers(runs: Runs) -> Figure | None:
    """R(f) of every tensor in each label's first run, in decibels against its mean over f."""
    maps = first_runs(runs, _tensors)
    emphasis = {
        f"{name}, {label}": fmean(levels)
        for label, found in maps.items()
        for name, some in found.items()
        if (levels := known(Value("response_low", "response_high", decibels=True), some))
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
        curves = [_relative(found.get(name, []), "response") for name in names]
        frequencies = sorted({f for curve in curves for f in curve})
        plot.add_heatmap(
            x=frequencies,
            y=[plotly_text(name) for name in names],
            z=[[curve.get(f) for f in frequencies] for curve in curves],
            coloraxis="coloraxis",
            hovertemplate="%{y}<br>%{x:.3f} cycles per step: %{z:.1f} dB<extra></extra>",
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


def _relative(rows: Sequence[Row], key: str) -> Points:
    """A list over ``frequency`` in decibels, less its mean over frequencies: its mean over rows."""
    curves = []
    for row in rows:
        frequencies, levels = scalars(row, "frequency"), list(map(decibels, scalars(row, key)))
        if len(frequencies) == len(levels):
            points = finite(zip(frequencies, levels, strict=True))
            mean = fmean(points.values() or [0])
            curves.append({f: level - mean for f, level in points.items()})
    return averaged(curves)
