"""A model looked at without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode and no gradients inside; afterwards every module is in the mode it was in.

    Yields:
        The device that the model lies on.
    """
    # Module by module: a frozen part may be evaluating while the rest trains.
    modes = [(module, module.training) for module in model.modules()]
    first = next(model.parameters(), None)
    model.eval()
    try:
        with torch.no_grad():
            yield first.device if first is not None else torch.device("cpu")
    finally:
        for module, training in modes:
            module.training = training
