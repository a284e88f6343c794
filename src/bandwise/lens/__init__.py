"""What an optimizer does to bands, weights, activations and decision boundaries.

``Lens`` records quantities during training; ``figures`` draws what was recorded. A
quantity measures and an instrument draws, never both: what can be drawn is in the log.
"""

from bandwise.lens.drawn import figures
from bandwise.lens.quantity import Quantity, Row, Step, Traced
from bandwise.lens.reading import readings
from bandwise.lens.recorder import Lens
from bandwise.lens.spatial import (
    Spatial,
    filter_bias_variance,
    mask_filter,
    momentary_mask,
    spectral_figures,
)
from bandwise.lens.temporal import Temporal, response
from bandwise.lens.weight_series import Weights

__all__ = [
    "Lens",
    "Quantity",
    "Row",
    "Spatial",
    "Step",
    "Temporal",
    "Traced",
    "Weights",
    "figures",
    "filter_bias_variance",
    "mask_filter",
    "momentary_mask",
    "readings",
    "response",
    "spectral_figures",
]
