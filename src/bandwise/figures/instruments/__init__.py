"""Instruments draw what the lens's quantities measured; they measure nothing. Needs plotly.

An instrument is a function from ``Runs`` to a ``bandwise.figures.figure.Figure``, or to
``None`` where the rows hold nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bandwise.figures.figure import Figure
from bandwise.figures.instruments import (
    across,
    activations,
    bands,
    boundary,
    decisions,
    emphasis,
    function_space,
    gain,
    layers,
    mask,
    slopes,
    weights,
)
from bandwise.figures.instruments.rows import Runs

__all__ = ["Runs", "sections"]

_SECTIONS: dict[str, Sequence[Callable[[Runs], Figure | None]]] = {
    "Slow and fast gradients": [
        gain.gain,
        slopes.size_slope,
        slopes.rate_slope,
        slopes.size_slope_over_steps,
        slopes.rate_slope_over_steps,
        across.across,
        emphasis.emphasis,
        layers.layers,
    ],
    "What is learnt first": [
        function_space.function_space,
        decisions.alignment,
        decisions.agreement,
        decisions.accuracy,
        decisions.loss,
        boundary.boundary,
    ],
    "Gradients as matrices": [bands.low, bands.mid, bands.high, mask.kept, mask.overlap],
    "Weights": weights.FIGURES,
    "Activations": activations.FIGURES,
}


def sections(runs: Runs) -> dict[str, list[Figure]]:
    """Every figure that the rows hold something for, by heading."""
    drawn = {
        heading: [figure for instrument in some if (figure := instrument(runs)) is not None]
        for heading, some in _SECTIONS.items()
    }
    return {heading: figures for heading, figures in drawn.items() if figures}
