"""How much of a trained model's activations is as good as zero: Table 3 of the SMI paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean

from bandwise.figures.dots import Dots, dot_plot
from bandwise.figures.figure import Figure
from bandwise.figures.instruments.rows import Runs, compared, rows_of
from bandwise.lens.quantities.quantity import Row

_ZERO = (
    "The share of values below a tenth of their layer's root mean square, at the end of training."
)
_KINDS = {
    "attention_weights": ("Attention weights as good as zero", _ZERO),
    "feed_forward_hidden": ("Feed-forward activations as good as zero", _ZERO),
    "layer_norm_outputs": ("Layer norms' outputs as good as zero", _ZERO),
    "a_sparse": (
        "Active before GELU or ReLU",
        "The share of what enters a GELU or ReLU that is above zero, at the end of training: "
        "smaller in a sparser model.",
    ),
}


def _kind(runs: Runs, key: str) -> Figure | None:
    found = {
        label: [
            row
            for rows in some
            for row in rows_of(rows, "activations")[-1:]
            if row.get(key) is not None
        ]
        for label, some in runs.items()
    }
    dots = [
        Dots(
            index=index,
            name=label,
            kind="seeds",
            values=[(f"{row[key]:.2%}", row[key]) for row in found[label]],
            mean=(mean := fmean(row[key] for row in found[label])),
            words=f"mean {mean:.2%}",
        )
        for index, label in enumerate(runs)
        if found[label]
    ]
    if not dots:
        return None
    what, note = _KINDS[key]
    plot = dot_plot(dots, "share of values", {})
    plot.update_xaxes(tickformat=".1~%")
    return Figure(
        f"lens-activations-{key.replace('_', '-')}",
        f"{what}: {_said(found, key)}",
        f"{note} Dots are seeds, the diamond is their mean.",
        plot,
        small=True,
    )


def _said(found: Mapping[str, Sequence[Row]], key: str) -> str:
    """Who has most and who has least, and whether other thresholds for zero agree."""
    rows = [row for some in found.values() for row in some]
    others = [k for k in rows[0] if k.startswith(f"{key}_at_") and all(k in row for row in rows)]
    means = [
        {label: fmean(row[k] for row in some) for label, some in found.items() if some}
        for k in (key, *others)
    ]
    said = compared(means[0], ".1%")
    low, high = (pick(means[0], key=means[0].__getitem__) for pick in (min, max))
    if low == high or not others:
        return said
    always = all(mean[low] < mean[high] for mean in means)
    return f"{said}, {'at every threshold' if always else 'but at other thresholds not'}"


FIGURES = [partial(_kind, key=key) for key in _KINDS]
