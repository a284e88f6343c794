"""Which magnitudes lie below a quantile, on a CPU by a search in place of a sort."""

import functools
import math

import torch
from torch import Tensor

from bandwise.optim import _spectrum as spectrum
from bandwise.optim._spectrum import Grid

_SAMPLE = 2048
# A sort of fewer values costs less than a sample and passes over the rest.
_SMALL = 1 << 12
# A search that takes more passes has met equal values.
_PASSES = 20


def removed(grid: Grid, M: Tensor, q: float, out: Tensor | None = None) -> Tensor:
    """1 where a magnitude is below ``grid.threshold(M, q)``, 0 elsewhere.

    On a CPU each matrix is searched: a guess is corrected until the number of values below it is
    right. Small and complex matrices are sorted. So are matrices on other devices, where the host
    would have to wait for every count.

    Args:
        grid: of the matrices.
        M: magnitudes, (..., n, m). Of a matrix of NaN nothing is removed.
        q: in [0, 1].
        out: where the result is written, contiguous. It must not be ``M``'s own memory.
    """
    out = torch.empty_like(M) if out is None else out
    if not spectrum.at_hand(M) or grid.is_complex or math.prod(grid.shape) < _SMALL:
        return torch.lt(M, grid.threshold(M, q), out=out)
    each = (tensor.view(-1, *grid.shape) for tensor in (M.contiguous(), out))
    for magnitudes, below in zip(*each, strict=True):
        if magnitudes[0, 0].isnan():
            below.zero_()
        else:
            _search(grid, magnitudes, q, below)
    return out


def _search(grid: Grid, M: Tensor, q: float, out: Tensor) -> None:
    """``removed`` for one matrix.

    A sample gives the first guesses. Once a guess counts too few and another too many, the next
    guess lies between them, where a straight line through both has the right number.
    """
    n, own = grid.n, grid.own
    count, place = n * grid.d, grid.place(q)
    # The coefficients that are their own conjugates. All other values occur in pairs.
    lone = M[:: n // 2 if n % 2 == 0 else n, own].flatten().tolist()
    sample = M.reshape(-1)[_sample_places(M.numel())].sort().values

    low, fewer, high, more = -math.inf, 0, math.inf, count
    at, limit = q * (_SAMPLE - 1), sample[spectrum.order(q, _SAMPLE)].item()
    for _ in range(_PASSES):
        torch.lt(M, limit, out=out)
        found = _count(out, own)
        # One too few is right as well if the next value is a pair: the threshold is its second.
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
            # A little too far, so that the threshold lies between this guess and the last.
            at += 1.2 * (place - found) / count * _SAMPLE + math.copysign(2, place - found)
            if not 0 <= at < _SAMPLE - 1:
                break
            left, right = sample[int(at) : int(at) + 2].tolist()
            limit = left + at % 1 * (right - left)
        if not low < limit < high:
            break
    _select(M, place - fewer, low, high, own, out)


def _select(M: Tensor, place: int, low: float, high: float, own: slice, out: Tensor) -> None:
    """``removed`` for one matrix, by an exact selection among the values in [low, high).

    The threshold has the given place among them, counted from 0.
    """
    inside = (M >= low).logical_and_(M < high)
    singles = M[:, own][inside[:, own]]
    inside[:, own] = False
    pairs = M[inside]
    candidates = torch.cat([pairs, pairs, singles])
    torch.lt(M, candidates.kthvalue(place + 1).values, out=out)


def _count(below: Tensor, own: slice) -> int:
    """How many coefficients of the full spectrum the ones in a half spectrum stand for."""
    # Single precision holds sums of ones exactly up to 2^24.
    dtype = torch.float64 if below.numel() >= 1 << 24 else None
    return int(2 * below.sum(dtype=dtype).item() - below[:, own].sum(dtype=dtype).item())


@functools.lru_cache(maxsize=256)
def _sample_places(numel: int) -> Tensor:
    """Places all over a matrix, at distances that have nothing to do with its rows' length."""
    return torch.arange(_SAMPLE, device="cpu") * 2654435761 % numel
