"""The figures of the weights, Tables 2 and 4 of the SMI paper, as training goes on."""

from __future__ import annotations

from functools import partial

from bandwise.figures.figure import Figure
from bandwise.figures.instruments.curves import series
from bandwise.figures.instruments.rows import Runs
from bandwise.figures.words import headline

_NOTES = {
    "spectral_norm": "The largest singular value: how much a matrix can stretch a vector.",
    "condition_number": "The largest singular value over the smallest that is not negligible: "
    "large where a matrix nearly flattens some directions.",
    "effective_rank_ratio": "How evenly the singular values are spread: 1 if all are equal, near "
    "0 if a few directions do everything.",
    "magnitude_variance": "How much the sizes of the weights differ.",
    "kurtosis": "How heavy the tails of the weights are: 3 for normal values, more with outliers.",
    "effective_parameter_ratio": "How evenly the sizes of the weights are spread: 1 if all are "
    "equal, 0.75 for normal values, near 0 if few weights carry everything.",
}


def _figure(runs: Runs, key: str) -> Figure | None:
    what = key.replace("_", " ")
    return series(
        f"weights-{key.replace('_', '-')}",
        runs,
        "weights",
        lambda row: row.get(key),
        headline(what),
        note=f"{_NOTES[key]} The mean over weight matrices.",
        y=what,
    )


FIGURES = [partial(_figure, key=key) for key in _NOTES]
