"""The spectrum of a gradient: matrix layout, transform, magnitudes, quantile.

A real matrix of n x d has a Hermitian spectrum: the value at (i, j) is the conjugate of the one at
(-i, -j), indices taken modulo n and d. ``rfft2`` keeps columns 0 to d//2, the *half spectrum*, and
loses nothing. Column 0, and column d/2 where d is even, hold their own conjugates; every other
column stands for itself and for its mirror image. A complex matrix has no such symmetry and keeps
its full spectrum.

All functions take batches: any number of dimensions may stand before the last two.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def matrix_shape(shape: torch.Size) -> tuple[int, int]:
    """Rows and columns of a tensor laid out as a matrix: one row for a vector, otherwise
    ``shape[0]`` rows, which for a convolution are its output channels."""
    rows = shape[0] if len(shape) > 1 else 1
    return rows, shape.numel() // rows


def spectrum_shape(shape: torch.Size, is_complex: bool) -> tuple[int, int]:
    """Rows and columns of the spectrum that is kept of a tensor of that shape."""
    n, d = matrix_shape(shape)
    return (n, d) if is_complex else (n, d // 2 + 1)


def transform(matrix: Tensor) -> Tensor:
    """The spectrum of (..., n, d): the half spectrum of a real matrix, the whole of a complex."""
    fft: Callable[[Tensor], Tensor] = torch.fft.fft2 if matrix.is_complex() else torch.fft.rfft2
    return fft(matrix)


def inverse(spectrum: Tensor, like: Tensor) -> Tensor:
    """The matrix that a spectrum stands for, of ``like``'s shape, real if ``like`` is."""
    matrix: Tensor
    if like.is_complex():
        matrix = torch.fft.ifft2(spectrum)
    else:
        matrix = torch.fft.irfft2(spectrum, s=like.shape[-2:])
    return matrix


def magnitude(spectrum: Tensor, like: Tensor) -> Tensor:
    """The modulus of every coefficient, exactly equal for the two of a conjugate pair.

    Rounding tears the two magnitudes of a pair apart by a bit; a threshold between them would keep
    one without the other. In a half spectrum only the columns that hold their own conjugates have
    both: row i and row n-i.
    """
    modulus = spectrum.abs()
    if not like.is_complex():
        d = like.shape[-1]
        for column in {0, d // 2} if d % 2 == 0 else {0}:
            values = modulus[..., column]
            mirrored = values.flip(-1).roll(1, -1)
            values.add_(mirrored).div_(2)
    return modulus


def quantile(magnitudes: Tensor, q: float, like: Tensor) -> Tensor:
    """The q-th quantile over the *full* spectrum, by linear interpolation, for every matrix.

    ``torch.quantile`` takes the same interpolation but refuses more than 2^24 elements.

    Args:
        magnitudes: (..., n, m), of the spectrum that is kept.
        q: in [0, 1].
        like: the matrix (..., n, d) that the spectrum stands for.

    Returns:
        (..., 1, 1).
    """
    everything = magnitudes.flatten(-2)
    if not like.is_complex():
        d = like.shape[-1]
        twins = magnitudes[..., 1 : (d + 1) // 2].flatten(-2)
        everything = torch.cat([everything, twins], dim=-1)
    everything = everything.sort(dim=-1).values
    below, weight = rank(q, everything.shape[-1])
    lower = everything[..., below]
    upper = everything[..., min(below + 1, everything.shape[-1] - 1)]
    return lower.lerp(upper, weight)[..., None, None]


def rank(q: float, count: int) -> tuple[int, float]:
    """Where the q-th quantile of ``count`` sorted values lies: an index from 0, and how far it is
    on the way to the next.

    The place is q (count - 1). A product within rounding of a whole number is that number: 0.55 of
    20 is the 11th place, not one 2e-15 beyond it.
    """
    place = q * (count - 1)
    whole = round(place)
    if abs(place - whole) <= 4 * math.ulp(place):
        return whole, 0.0
    return math.floor(place), place - math.floor(place)
