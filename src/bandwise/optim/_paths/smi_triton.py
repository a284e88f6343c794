# Triton's language has types of its own.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""SMI's filter on a GPU, in Triton: all that lies between the two transforms, for all matrices of
one shape at once, without a sort and without waiting for the device.

The threshold is found digit by digit. Read as integers, magnitudes keep their order; a histogram of
their highest eight bits says which value of these the one at the threshold has, a second one, of
the magnitudes that share it, its next eight bits, and after four it is known to the last bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError as error:
    raise ImportError("fused=True on a GPU needs Triton: pip install triton") from error

_DTYPES = {
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}
_BLOCK = 2048
_DIGIT = tl.constexpr(8)
_VALUES = tl.constexpr(1 << _DIGIT.value)
_SHIFTS = tuple(range(32 - _DIGIT.value, -1, -_DIGIT.value))


def step(
    pairs: list[tuple[Tensor, Tensor]],
    shape: tuple[int, int],
    place: int,
    alpha: float,
    beta: float,
    blend: bool,
) -> None:
    """Move the histories, and filter the gradients in place.

    Args:
        pairs: gradients and the histories of their half spectra, contiguous, on the current GPU;
            the ones and the others of one dtype. A history is -1 where there is none yet.
        shape: of each gradient as a matrix.
        place: of the threshold among the sorted magnitudes of the full spectrum.
        alpha: the part of the filtered gradient.
        beta: decay of the histories.
        blend: whether gradients are changed at all.
    """
    grads, histories = zip(*pairs, strict=True)
    device = grads[0].device
    n, d = shape
    m, size, batch = d // 2 + 1, n * (d // 2 + 1), len(grads)
    # What is not needed further on is not kept. The order in memory of what an FFT returns is not
    # promised.
    G_hat = torch.fft.rfft2(
        torch.stack([grad.view(n, d).to(torch.float32) for grad in grads])
    ).contiguous()
    M = torch.empty(batch, n, m, device=device)
    # By matrix: whether it has a value that is not finite, whether its history is to begin.
    flags = torch.zeros(batch, 2, dtype=torch.int32, device=device)
    tallies = torch.zeros(batch, 2 * _VALUES.value, dtype=torch.int32, device=device)
    found = torch.zeros(batch, dtype=torch.int32, device=device)
    left = torch.full((batch,), place, dtype=torch.int32, device=device)

    places = [[grad.data_ptr(), history.data_ptr()] for grad, history in pairs]
    # Without waiting for the device.
    addresses = torch.tensor(places, dtype=torch.int64).to(device, non_blocking=True)
    parts = torch.view_as_real(G_hat)
    kept, stored = histories[0].dtype, grads[0].dtype
    largest = torch.finfo(kept).max
    grid = (triton.cdiv(size, _BLOCK), batch)
    even = d % 2 == 0

    _magnitudes[grid](parts, M, addresses, flags, n, m, even, _DTYPES[kept], _BLOCK)
    # 1 - beta would be rounded too soon in single precision.
    _averaged[grid](
        M, addresses, flags, tallies, n, m, even, 1 - beta, largest, _DTYPES[kept], _SHIFTS[0],
        _BLOCK,
    )  # fmt: skip
    if not blend:
        return
    for shift in _SHIFTS:
        if shift != _SHIFTS[0]:
            _tallied[grid](M, found, tallies, n, m, even, shift, _BLOCK)
        _chosen[(batch,)](tallies, found, left)
    _weighed[grid](parts, M, found, n, m, alpha, _BLOCK)
    del M
    filtered = torch.fft.irfft2(G_hat, s=shape).contiguous()
    _returned[(triton.cdiv(n * d, _BLOCK), batch)](
        filtered, addresses, flags, n * d, _DTYPES[stored], _BLOCK
    )


@triton.jit
def _modulus(spectrum, index, exists):
    """NaN if a part is not finite."""
    re = tl.load(spectrum + 2 * index, exists, 0.0)
    im = tl.load(spectrum + 2 * index + 1, exists, 0.0)
    # Squares could leave the range.
    large = tl.maximum(tl.abs(re), tl.abs(im))
    small = tl.minimum(tl.abs(re), tl.abs(im))
    ratio = small / tl.where(large == 0, 1.0, large)
    return large * tl.sqrt(1 + ratio * ratio) + (re - re) + (im - im)


@triton.jit
def _own(index, n, m, EVEN: tl.constexpr):
    """Whether a coefficient's column holds its own conjugates."""
    column = index % m
    own = column == 0
    if EVEN:
        own = own | (column == m - 1)
    return own


@triton.jit
def _magnitudes(parts, M, addresses, flags, n, m, EVEN: tl.constexpr, KEPT: tl.constexpr,
                BLOCK: tl.constexpr):  # fmt: skip
    """M, equal for conjugates; and the flags."""
    batch = tl.program_id(1)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = index < n * m
    spectrum = parts + 2 * batch.to(tl.int64) * n * m
    modulus = _modulus(spectrum, index, exists)
    twin = _own(index, n, m, EVEN) & (index >= m) & exists
    other = _modulus(spectrum, (n - index // m) * m + index % m, twin)
    modulus = tl.where(twin, (modulus + other) / 2, modulus)
    tl.store(M + batch.to(tl.int64) * n * m + index, modulus, exists)
    infinite = tl.max((exists & ~(modulus < float("inf"))).to(tl.int32), 0)
    tl.atomic_max(flags + 2 * batch, infinite, mask=infinite > 0)
    if tl.program_id(0) == 0:
        history = tl.load(addresses + 2 * batch + 1).to(tl.pointer_type(KEPT))
        tl.store(flags + 2 * batch + 1, (tl.load(history).to(tl.float32) < 0).to(tl.int32))


@triton.jit
def _averaged(M, addresses, flags, tallies, n, m, EVEN: tl.constexpr, weight, largest,
              KEPT: tl.constexpr, SHIFT: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """H, in the history and where M was, and the tally of its first digit."""
    batch = tl.program_id(1)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = index < n * m
    M += batch.to(tl.int64) * n * m
    history = tl.load(addresses + 2 * batch + 1).to(tl.pointer_type(KEPT))
    old = tl.load(history + index, exists, 0.0).to(tl.float32)
    modulus = tl.load(M + index, exists, 0.0)
    begins = tl.load(flags + 2 * batch + 1) > 0
    new = tl.where(begins, modulus, old + weight * (modulus - old))
    new = tl.where(tl.load(flags + 2 * batch) > 0, old, new)
    tl.store(M + index, new, exists)
    # What a smaller dtype cannot hold must not become inf.
    tl.store(history + index, tl.minimum(new, largest).to(KEPT), exists)
    _tally(new, exists, index, tallies + 2 * _VALUES * batch, n, m, EVEN, SHIFT)


@triton.jit
def _tallied(M, found, tallies, n, m, EVEN: tl.constexpr, SHIFT: tl.constexpr,
             BLOCK: tl.constexpr):  # fmt: skip
    """The tally of a later digit, of the magnitudes that have those found before."""
    batch = tl.program_id(1)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = index < n * m
    H = tl.load(M + batch.to(tl.int64) * n * m + index, exists, 0.0)
    alike = (H.to(tl.int32, bitcast=True) >> (SHIFT + _DIGIT)) == tl.load(found + batch)
    _tally(H, exists & alike, index, tallies + 2 * _VALUES * batch, n, m, EVEN, SHIFT)


@triton.jit
def _tally(H, counted, index, tallies, n, m, EVEN: tl.constexpr, SHIFT: tl.constexpr):
    """Count the values of a digit: first of coefficients that stand for two, then of the others."""
    digit = (H.to(tl.int32, bitcast=True) >> SHIFT) & (_VALUES - 1)
    digit += tl.where(_own(index, n, m, EVEN), _VALUES, 0)
    counts = tl.histogram(digit, 2 * _VALUES, mask=counted)
    tl.atomic_add(tallies + tl.arange(0, 2 * _VALUES), counts, mask=counts > 0)


@triton.jit
def _chosen(tallies, found, left):
    """The digit that the value at the place has, and its place among those that have it too."""
    batch = tl.program_id(0)
    values = tl.arange(0, _VALUES)
    pairs = tallies + 2 * _VALUES * batch + values
    upto = tl.cumsum(2 * tl.load(pairs) + tl.load(pairs + _VALUES), 0)
    place = tl.load(left + batch)
    before = upto <= place
    digit = tl.sum(before.to(tl.int32), 0)
    tl.store(found + batch, tl.load(found + batch) * _VALUES + digit)
    tl.store(left + batch, place - tl.max(tl.where(before, upto, 0), 0))
    tl.store(pairs, tl.zeros_like(values))
    tl.store(pairs + _VALUES, tl.zeros_like(values))


@triton.jit
def _weighed(parts, M, found, n, m, alpha, BLOCK: tl.constexpr):
    """The spectrum of the blend: what is removed is left with 1 - alpha of itself."""
    batch = tl.program_id(1)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = index < n * m
    H = tl.load(M + batch.to(tl.int64) * n * m + index, exists, 0.0)
    removed = exists & (H.to(tl.int32, bitcast=True) < tl.load(found + batch))
    spectrum = parts + 2 * batch.to(tl.int64) * n * m + 2 * index
    # What stays is not touched.
    tl.store(spectrum, tl.load(spectrum, removed, 0.0) * (1 - alpha), removed)
    tl.store(spectrum + 1, tl.load(spectrum + 1, removed, 0.0) * (1 - alpha), removed)


@triton.jit
def _returned(filtered, addresses, flags, numel, STORED: tl.constexpr, BLOCK: tl.constexpr):
    """The blended gradient where the gradient was, if it was finite."""
    batch = tl.program_id(1)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    wanted = index < tl.where(tl.load(flags + 2 * batch) > 0, 0, numel)
    value = tl.load(filtered + batch.to(tl.int64) * numel + index, wanted, 0.0)
    grad = tl.load(addresses + 2 * batch).to(tl.pointer_type(STORED))
    tl.store(grad + index, value.to(STORED), wanted)
