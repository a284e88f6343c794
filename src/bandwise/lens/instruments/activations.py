"""How much of a trained model's activations is as good as zero: Table 3 of the SMI paper."""

from __future__ import annotations

import html
from statistics import fmean

from bandwise.drawing.curve import finite
from bandwise.drawing.figure import Figure, blank, line
from bandwise.drawing.words import headline
from bandwise.lens.instruments.rows import Runs, compared, rows_of
from bandwise.lens.quantity import Row

_OVERALL = "overall_average"
_KINDS = {
    "attention_weights": "attention weights",
    "feed_forward_hidden": "feed-forward hidden",
    "layer_norm_outputs": "layer norm outputs",
    _OVERALL: "overall average",
    "a_sparse": "active before GELU or ReLU",
}


def activations(runs: Runs) -> Figure | None:
    """A dot for each label and kind of layer, with a bar from the lowest to the highest run."""
    found = {
        label: [rows_of(rows, "activations")[-1] for rows in some if rows_of(rows, "activations")]
        for label, some in runs.items()
    }
    kinds = [k for k in _KINDS if any(k in row for some in found.values() for row in some)]
    if not kinds:
        return None
    plot = blank(height=110 + (24 + 12 * len(runs)) * len(kinds), labels=len(runs))
    for index, (label, some) in enumerate(found.items()):
        each = {kind: list(finite(enumerate(r.get(kind) for r in some)).values()) for kind in kinds}
        each = {kind: values for kind, values in each.items() if values}
        if not each:
            continue
        centre = {kind: fmean(values) for kind, values in each.items()}
        plot.add_scatter(
            x=list(centre.values()),
            y=[kinds.index(k) + 0.8 * ((index + 0.5) / len(runs) - 0.5) for k in centre],
            error_x={
                "array": [max(each[kind]) - mean for kind, mean in centre.items()],
                "arrayminus": [mean - min(each[kind]) for kind, mean in centre.items()],
            },
            mode="markers",
            marker={"color": line(index).colour, "size": 9},
            name=html.escape(label),
            legendgroup=str(index),
            hovertemplate="%{x:.1%}",
        )
    plot.update_xaxes(title_text="share of values", tickformat=".0%")
    plot.update_yaxes(
        tickvals=list(range(len(kinds))),
        ticktext=[headline(_KINDS[kind]) for kind in kinds],
        range=[len(kinds) - 0.5, -0.5],
        fixedrange=True,
        showgrid=False,
    )
    plot.update_layout(hovermode="closest")
    return Figure(
        "lens-activations",
        f"Activations as good as zero: {_said(found)}",
        "The share of values below a tenth of their layer's root mean square, at the end of "
        "training. Last, if there is such, and the other way round: the share of a GELU's or "
        "ReLU's inputs above zero, which is smaller in a sparser model. Bars go from the lowest "
        "seed to the highest.",
        plot,
    )


def _said(found: dict[str, list[Row]]) -> str:
    """Who has most and who has least overall, and whether that depends on the threshold."""
    keys = {key for some in found.values() for row in some for key in row if _OVERALL in key}
    of = {
        label: {key: fmean(row[key] for row in some) for key in keys}
        for label, some in found.items()
        if some
    }
    overall = {label: values[_OVERALL] for label, values in of.items()}
    if len(set(overall.values())) == 1:
        return compared(overall, ".1%")
    least, most = min(overall, key=lambda k: overall[k]), max(overall, key=lambda k: overall[k])
    always = all(of[least][key] < of[most][key] for key in keys)
    return f"{compared(overall, '.1%')}, {'' if always else 'but not '}at every threshold"
