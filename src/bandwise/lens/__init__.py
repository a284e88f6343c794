"""What an optimizer does to bands, weights, activations and decision boundaries: measured only.

:class:`Lens` records during training; drawing is left to who reads the records.
"""

from bandwise.lens.quantity import Quantity, Row, Step, Traced
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
    "filter_bias_variance",
    "mask_filter",
    "momentary_mask",
    "response",
    "spectral_figures",
]
