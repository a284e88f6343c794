"""How much of a trained model's activations is as good as zero: Table 3 of the SMI paper."""

from __future__ import annotations

from functools import partial
from statistics import fmean

from bandwise.drawing.dots import Dots, dot_plot
from bandwise.drawing.figure import Figure
from bandwise.lens.instruments.rows import Runs, compared, rows_of

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
        label: [row for rows in some for row in rows_of(rows, "activations")[-1:] if key in row]
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
    # The same figure with other thresholds for what counts as zero.
    keys = [k for row in found[dots[0].name][:1] for k in row if k.startswith(key)]
    means = [{dot.name: fmean(row[k] for row in found[dot.name]) for dot in dots} for k in keys]
    title = f"{what}: {compared(means[0], '.1%')}"
    if len(dots) > 1 and len(keys) > 1:
        low, high = (pick(means[0], key=means[0].__getitem__) for pick in (min, max))
        always = all(mean[low] < mean[high] for mean in means)
        title += ", at every threshold" if always else ", but at other thresholds not"
    return Figure(
        f"lens-activations-{key.replace('_', '-')}",
        title,
        f"{note} Dots are seeds, the diamond is their mean.",
        plot,
        small=True,
    )


FIGURES = [partial(_kind, key=key) for key in _KINDS]
