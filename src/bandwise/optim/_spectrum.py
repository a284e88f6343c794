"""The spectrum of a gradient: matrix layout, transform, magnitudes, threshold.

A real matrix of n x d has a Hermitian spectrum: the value at (i, j) is the conjugate of the one at
(-i, -j), indices taken modulo n and d. ``rfft2`` keeps columns 0 to d//2, the *half spectrum*, and
loses nothing. Column 0, and column d/2 where d is even, hold their own conjugates; every other
column stands for itself and for its mirror image. A complex matrix has no such symmetry and keeps
its full spectrum.

All functions take batches: any number of dimensions may stand before the last two. Those with an
argument ``first`` also take a part of a spectrum, whole columns from that one on.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor


def at_hand(tensor: Tensor) -> bool:
    """Whether a value can be looked at without waiting for a device."""
    return tensor.device.type == "cpu"


def matrix_shape(shape: torch.Size) -> tuple[int, int]:
    """Rows and columns of a tensor laid out as a matrix: one row for a vector, otherwise
    ``shape[0]`` rows, which for a convolution are its output channels."""
    rows = shape[0] if len(shape) > 1 else 1
    return rows, shape.numel() // rows


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype to transform in: single precision at least."""
    return torch.promote_types(dtype, torch.float32)


def matrix(tensor: Tensor) -> Tensor:
    """A tensor laid out as a matrix, in a dtype that can be transformed."""
    return tensor.to(computing_dtype(tensor.dtype)).reshape(matrix_shape(tensor.shape))


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


def magnitude(spectrum: Tensor, like: Tensor, first: int = 0) -> Tensor:
    """The modulus of every coefficient, exactly equal for the two of a conjugate pair."""
    return _paired(spectrum.abs(), like, first)


def quick_magnitude(spectrum: Tensor, like: Tensor) -> Tensor:
    """``magnitude`` by squares, twice as fast on a CPU; see ``squares_fit``."""
    squares = torch.view_as_real(spectrum).square()
    return _paired((squares[..., 0] + squares[..., 1]).sqrt_(), like)


def squares_fit(peaks: Tensor) -> bool:
    """Whether spectra with these largest quick magnitudes lost nothing to their squares' range:
    what may have underflowed is below the transform's own rounding. Waits for the device.
    """
    limits = torch.finfo(peaks.dtype)
    low = math.sqrt(limits.tiny) / limits.eps
    return all(low < peak < math.inf for peak in peaks.flatten().tolist())


def _paired(modulus: Tensor, like: Tensor, first: int = 0) -> Tensor:
    """Rounding tears the two magnitudes of a conjugate pair apart by a bit; a threshold between
    them would keep one without the other. In a half spectrum only the columns that hold their own
    conjugates have both: row i and row n-i.
    """
    pairs = modulus[..., 1:, _own_columns(like, first)]
    pairs.add_(pairs.flip(-2)).div_(2)
    return modulus


def _own_columns(like: Tensor, first: int = 0) -> slice:
    """The columns of a spectrum that hold their own conjugates: 0, and d/2 where d is even."""
    d = like.shape[-1]
    if like.is_complex():
        return slice(0, 0)
    if d % 2 == 0:
        return slice(-first % (d // 2), None, d // 2)
    return slice(0, 1 if first == 0 else 0)


def threshold(magnitudes: Tensor, q: float, like: Tensor) -> Tensor:
    """The smallest magnitude that is not below the q-th quantile of the *full* spectrum.

    The quantile itself lies between two neighbours in order, by linear interpolation. No magnitude
    lies between them, so the upper one keeps what the quantile keeps, and no rounding of the
    interpolation can keep one more.

    Args:
        magnitudes: (..., n, m), of the spectrum that is kept.
        q: in [0, 1].
        like: the matrix (..., n, d) that the spectrum stands for.

    Returns:
        (..., 1, 1).
    """
    values = ordered(magnitudes, like)
    place = order(q, values.shape[-1])
    return values[..., place, None, None]


def ordered(magnitudes: Tensor, like: Tensor, first: int = 0) -> Tensor:
    """All magnitudes of the full spectrum, mirror images included: (..., n d), from small to large.

    Of a part of it, those of its columns and of their mirror images.
    """
    everything = magnitudes.flatten(-2)
    if not like.is_complex():
        mirrored = slice(max(1 - first, 0), max((like.shape[-1] + 1) // 2 - first, 0))
        everything = torch.cat([everything, magnitudes[..., mirrored].flatten(-2)], dim=-1)
    return everything.sort(dim=-1).values


def order(q: float, count: int) -> int:
    """How many of ``count`` values lie below the q-th quantile: q (count - 1), rounded up.

    A product within rounding of a whole number is that number: 0.55 of 20 is 11, not 2e-15 more.
    """
    place = q * (count - 1)
    whole = round(place)
    return whole if abs(place - whole) <= 4 * math.ulp(place) else math.ceil(place)


_SAMPLE = 2048
# Below this size sorting it all costs less than a sample and passes over the rest.
_SMALL = 1 << 12
# Passes after which a search has met ties.
_PASSES = 20


def removed(magnitudes: Tensor, q: float, like: Tensor, out: Tensor | None = None) -> Tensor:
    """1 where a magnitude is below ``threshold``, 0 elsewhere, without sorting.

    On a CPU each matrix is searched by counting how many values lie below a guess, until it is the
    number that is to be removed; small or complex matrices are left to sorting, and so are those on
    other devices, where a count would have to be waited for.

    Args:
        magnitudes: (..., n, m), as of ``threshold``.
        q: in [0, 1].
        like: the matrix (..., n, d) that the spectrum stands for.
        out: where the result is written to, contiguous.
    """
    out = torch.empty_like(magnitudes) if out is None else out
    rows, columns = magnitudes.shape[-2:]
    if not at_hand(magnitudes) or like.is_complex() or rows * columns < _SMALL:
        return torch.lt(magnitudes, threshold(magnitudes, q, like), out=out)
    each = (tensor.view(-1, rows, columns) for tensor in (magnitudes.contiguous(), out))
    for H, below in zip(*each, strict=True):
        _search(H, q, like, below)
    return out


def _search(H: Tensor, q: float, like: Tensor, out: Tensor) -> None:
    """``removed`` for one matrix.

    A sample gives the first guesses. Between two that count too few and too many the next lies
    where a straight line through them has the right number.
    """
    own = _own_columns(like)
    count = H.shape[0] * like.shape[-1]
    place = order(q, count)
    # Every other value is there twice, whether it stands for itself and its mirror image or has
    # that in its own column.
    lone = H[:: H.shape[0] // 2 if H.shape[0] % 2 == 0 else H.shape[0], own].flatten().tolist()
    sample = H.reshape(-1)[_sample_places(H.numel())].sort().values

    low, fewer, high, more = -math.inf, 0, math.inf, count
    at, limit = q * (_SAMPLE - 1), sample[order(q, _SAMPLE)].item()
    for _ in range(_PASSES):
        torch.lt(H, limit, out=out)
        found = _count(out, own)
        # With one fewer, the next value is the threshold if it is there twice.
        if found == place or (found == place - 1 and not any(limit <= v < high for v in lone)):
            return
        if found < place:
            low, fewer = limit, found
        else:
            high, more = limit, found
        if math.isfinite(high - low):
            share = (place - fewer) / (more - fewer) if more - fewer > 2 else 0.5
            limit = low + share * (high - low)
        else:
            # A little beyond, so that the two guesses lie on both sides.
            at += 1.2 * (place - found) / count * _SAMPLE + math.copysign(2, place - found)
            if not 0 <= at < _SAMPLE - 1:
                break
            left, right = sample[int(at) : int(at) + 2].tolist()
            limit = left + at % 1 * (right - left)
        if not low < limit < high:
            break
    _select(H, place - fewer, low, high, own, out)


def _select(H: Tensor, place: int, low: float, high: float, own: slice, out: Tensor) -> None:
    """``removed`` for a matrix whose threshold is the value at a place, counted from 0, among
    those from ``low`` to below ``high``."""
    inside = (H >= low).logical_and_(H < high)
    singles = H[:, own][inside[:, own]]
    inside[:, own] = False
    pairs = H[inside]
    candidates = torch.cat([pairs, pairs, singles])
    torch.lt(H, candidates.kthvalue(place + 1).values, out=out)


def _count(below: Tensor, own: slice) -> int:
    """How many coefficients of the full spectrum the ones in the half spectrum stand for."""
    # Sums of ones are exact in single precision as far as it counts.
    dtype = torch.float64 if below.numel() >= 1 << 24 else None
    return int(2 * below.sum(dtype=dtype).item() - below[:, own].sum(dtype=dtype).item())


@functools.lru_cache(maxsize=256)
def _sample_places(numel: int) -> Tensor:
    """Places spread over a matrix without a rhythm that could meet its rows'."""
    return torch.arange(_SAMPLE) * 2654435761 % numel
