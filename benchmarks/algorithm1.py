"""Algorithm 1 of the SMI paper as written. The benchmarks compare the library's speed with it.

It uses the full spectrum and ``torch.quantile``, no batches, and nothing of the library. The tests
have an Algorithm 1 of their own, which judges whether the library is right.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# torch.quantile refuses a larger input.
_QUANTILE_LIMIT = 2**24


class Algorithm1:
    """Filters matrices in place by lines 7 to 29.

    Args:
        gradients: matrices; every ``step`` reads and changes their current values.
        alpha: the weight of the filtered gradient.
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
    """``torch.quantile``. Beyond its limit, sort and interpolate as it does."""
    if values.numel() <= _QUANTILE_LIMIT:
        return torch.quantile(values, q)
    ordered = values.flatten().sort().values
    place = q * (len(ordered) - 1)
    below = int(place)
    return ordered[below].lerp(ordered[min(below + 1, len(ordered) - 1)], place - below)
