"""The spectrum of a matrix: the coefficients that are kept, their magnitudes and quantiles.

A real matrix of n x d has a Hermitian spectrum: the coefficient at (i, j) is the conjugate of the
one at (-i, -j), with indices modulo n and d. ``rfft2`` keeps columns 0 to d//2, the *half
spectrum*, and loses nothing. Column 0, and column d/2 where d is even, are the *own* columns: they
hold both coefficients of a conjugate pair. In all other columns, a coefficient stands for itself
and for its conjugate. A complex matrix has no such symmetry, and its full spectrum is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Layout = Literal["matrix", "paper"]


def at_hand(tensor: Tensor) -> bool:
    """Whether the host can read a value without waiting for a device."""
    return tensor.device.type == "cpu"


def matrix_shape(shape: torch.Size, layout: Layout = "matrix") -> tuple[int, int]:
    """Rows and columns of a tensor as a matrix. ``SMI`` says what the layouts are.

    The paper's matrix stands here transposed, so that no value moves in memory. Its spectrum is
    transposed then, and what the filter does is the same. A vector is one row.
    """
    leading = max(min(2 if layout == "paper" else 1, len(shape) - 1), 0)
    rows = shape[:leading].numel()
    return rows, shape.numel() // rows


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype to transform in: single precision at least."""
    return torch.promote_types(dtype, torch.float32)


class Grid(NamedTuple):
    """The coefficients that are kept of the spectrum of an n x d matrix, or some columns of them.

    Processes that share a spectrum have some of its ``columns`` each. All methods take stacks: any
    number of dimensions may come before the last two.
    """

    n: int
    d: int
    is_complex: bool
    columns: range

    @classmethod
    def of(cls, tensor: Tensor, layout: Layout = "matrix") -> Grid:
        """The whole grid of a tensor that is laid out as a matrix."""
        n, d = matrix_shape(tensor.shape, layout)
        return cls(n, d, tensor.is_complex(), range(d if tensor.is_complex() else d // 2 + 1))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the spectrum."""
        return self.n, len(self.columns)

    @property
    def own(self) -> slice:
        """The own columns, counted from the first column at hand."""
        if self.is_complex:
            return slice(0, 0)
        if self.d % 2 == 0:
            return slice(-self.columns.start % (self.d // 2), None, self.d // 2)
        return slice(0, 1 if self.columns.start == 0 else 0)

    def matrix(self, tensor: Tensor) -> Tensor:
        """A tensor as a matrix, in a dtype that can be transformed."""
        return tensor.to(computing_dtype(tensor.dtype)).reshape(self.n, self.d)

    def transform(self, G: Tensor) -> Tensor:
        """The spectrum of matrices: (..., n, d) to (..., n, m)."""
        fft: Callable[[Tensor], Tensor] = torch.fft.fft2 if self.is_complex else torch.fft.rfft2
        return fft(G)

    def inverse(self, G_hat: Tensor) -> Tensor:
        """The matrices that have the given spectrum: (..., n, m) to (..., n, d)."""
        ifft: Callable[..., Tensor] = torch.fft.ifft2 if self.is_complex else torch.fft.irfft2
        return ifft(G_hat, s=(self.n, self.d))

    def magnitude(self, G_hat: Tensor) -> Tensor:
        """The moduli of the coefficients. Those of a conjugate pair are exactly equal."""
        return self.paired(G_hat.abs())

    def paired(self, moduli: Tensor) -> Tensor:
        """Moduli that are equal within conjugate pairs; changed in place.

        Rounding makes the two moduli of a pair differ in the last bit. A threshold between them
        would keep one coefficient without the other. Both are at hand in the own columns alone, in
        rows i and n - i.
        """
        pairs = moduli[..., 1:, self.own]
        pairs.add_(pairs.flip(-2)).div_(2)
        return moduli

    def ordered(self, M: Tensor) -> Tensor:
        """Magnitudes of the full spectrum from small to large: (..., n, m) to (..., n d).

        Of some columns, those of the columns and of their conjugates.
        """
        values = M.flatten(-2)
        if not self.is_complex:
            first = self.columns.start
            doubled = slice(max(1 - first, 0), max((self.d + 1) // 2 - first, 0))
            values = torch.cat([values, M[..., doubled].flatten(-2)], dim=-1)
        return values.sort(dim=-1).values

    def place(self, q: float) -> int:
        """How many coefficients of the full spectrum lie below the q-th quantile."""
        return order(q, self.n * self.d)

    def threshold(self, M: Tensor, q: float) -> Tensor:
        """The smallest magnitude that is not below the q-th quantile of the full spectrum.

        The quantile itself is an interpolation between two neighbours in order. No magnitude lies
        between them, so the upper one keeps what the quantile keeps. It is free of rounding.
        (..., n, m) to (..., 1, 1).
        """
        return self.ordered(M)[..., self.place(q), None, None]

    def multiplicity(self, device: torch.device) -> Tensor:
        """How many coefficients of the full spectrum each one stands for: (n, m).

        In an own column the first of a conjugate pair stands for both, and the second for none. So
        every entry above 0 is one real wave.
        """
        counts = torch.ones(self.shape, device=device)
        if not self.is_complex:
            counts *= 2
            own = counts[:, self.own]
            own[:: self.n // 2 if self.n % 2 == 0 else self.n] = 1
            own[self.n // 2 + 1 :] = 0
        return counts

    def bands(self, device: torch.device) -> Tensor:
        """The band of each coefficient, by its radial frequency: (n, m).

        0 (low) is below 1/6 cycles, 1 (mid) from 1/6, 2 (high) from 1/3.
        """
        across = torch.fft.fftfreq(self.d, device=device)[self.columns.start : self.columns.stop]
        r2 = torch.fft.fftfreq(self.n, device=device).square()[:, None] + across.square()
        # Frequencies of just 1/6 and 1/3 belong to the band above them, whatever the rounding.
        return torch.bucketize(r2, r2.new_tensor([1 / 36, 1 / 9]) - 1e-6)


def order(q: float, count: int) -> int:
    """How many of ``count`` values lie below the q-th quantile: q (count - 1), rounded up.

    A product within rounding of a whole number is that number: 0.55 of 20 is 11, not 2e-15 more.
    """
    place = q * (count - 1)
    whole = round(place)
    return whole if abs(place - whole) <= 4 * math.ulp(place) else math.ceil(place)
