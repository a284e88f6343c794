"""Algorithm 1 of the SMI paper as written: what its optimized forms are compared with.

Full spectrum, ``torch.quantile``, no batches, nothing shared with the library. It is here to be
timed; whether the library is right is judged by the tests, which have an Algorithm 1 of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# A larger input is refused by torch.quantile.
_QUANTILE_LIMIT = 2**24


class Algorithm1:
    """Filters matrices in place, as lines 7 to 29 say.

    Args:
        gradients: matrices; every ``step`` reads and changes what they then hold.
        alpha: the part of the filtered gradient.
        beta: the decay of the magnitudes' moving average.
        q: the fraction of coefficients that is removed.
    """

    def __init__(
        self, gradients: Sequence[Tensor], alpha: float, beta: float = 0.99, q: float = 0.25
    ) -> None:
        self.gradients = gradients
        self.alpha, self.beta, self.q = alpha, beta, q
        self.histories: list[Tensor | None] = [None] * len(gradients)

    @torch.no_grad()
    def step(self) -> None:
        """Filter every gradient once."""
        for index, G in enumerate(self.gradients):
            G_hat = torch.fft.fft2(G)
            M = G_hat.abs()
            H = self.histories[index]
            H = M if H is None else self.beta * H + (1 - self.beta) * M
            self.histories[index] = H
            tau = _quantile(H, self.q)
            G_filtered = torch.fft.ifft2(G_hat * (H >= tau)).real
            G.copy_(self.alpha * G_filtered + (1 - self.alpha) * G)


def _quantile(values: Tensor, q: float) -> Tensor:
    """``torch.quantile``, and beyond its limit what it does: sort and interpolate."""
    if values.numel() <= _QUANTILE_LIMIT:
        return torch.quantile(values, q)
    ordered = values.flatten().sort().values
    place = q * (len(ordered) - 1)
    below = int(place)
    return ordered[below].lerp(ordered[min(below + 1, len(ordered) - 1)], place - below)
