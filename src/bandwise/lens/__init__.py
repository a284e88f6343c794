"""What an optimizer does to bands, weights, activations and decision boundaries.

``Lens`` records quantities during training. ``bandwise.figures.lens_figures`` draws them.
"""

from bandwise.lens.quantities.quantity import Quantity, Row, Step, Traced
from bandwise.lens.quantities.response import response
from bandwise.lens.quantities.spatial import (
    Spatial,
    filter_bias_variance,
    mask_filter,
    momentary_mask,
    spectral_figures,
)
from bandwise.lens.quantities.temporal import Temporal
from bandwise.lens.quantities.weights import Weights
from bandwise.lens.reading import readings
from bandwise.lens.recorder import Lens

__all__ = [
    "Lens",
    "Quantity",
    "Row",
    "Spatial",
    "Step",
    "Temporal",
    "Traced",
    "Weights",
    "filter_bias_variance",
    "mask_filter",
    "momentary_mask",
    "readings",
    "response",
    "spectral_figures",
]
