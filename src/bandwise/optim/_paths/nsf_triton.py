# Triton's language has types of its own.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""The kernels on a GPU, in Triton: all tensors of a group in one launch, or two.

A table holds the addresses of the tensors. They are cut into blocks of one length, and every block
knows the tensor that it belongs to. ``numbers`` are those of
``bandwise.optim._paths.nsf_fused.Update``, then the tensors' roots, then their rates.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from bandwise.optim._paths.nsf_fused import MOST, Tensors, Update

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError as error:
    raise ImportError("fused=True on a GPU needs Triton: pip install triton") from error

_BLOCK = 2048
# No finite number's logarithm is larger: that of an overflowed d becomes it, as 0 times inf is NaN.
_LARGEST_LOG = tl.constexpr(1024.0)
_DTYPES = {
    torch.float64: tl.float64,
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}


def step(tensors: list[Tensors], roots: list[float], rates: list[float], update: Update) -> None:
    """See ``bandwise.optim._paths.nsf_fused.step``."""
    dtype, device = tensors[0][0].dtype, tensors[0][0].device
    computing = torch.promote_types(dtype, torch.float32)
    blocks = _cut(tuple(theta.numel() for theta, *_ in tensors), device)

    def sent(values: list[Any], dtype: torch.dtype) -> Tensor:
        # Without waiting for the device.
        return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)

    addresses = sent([[x.data_ptr() for x in some] for some in tensors], torch.int64)
    numbers = sent([*update.numbers, *roots, *rates], computing)
    arguments = (addresses, blocks.numels, blocks.owners, blocks.starts, numbers, len(tensors))
    options = {
        "DTYPE": _DTYPES[dtype],
        "COMPUTING": _DTYPES[computing],
        "BLOCK": _BLOCK,
        "MOST": MOST,
    }
    grid = (len(blocks.owners),)
    if update.passes == 1:
        _whole[grid](*arguments, POWERED=update.power != 0, **options)
        return
    squares = torch.empty(len(blocks.owners), 2, dtype=torch.float64, device=device)
    # Moments of 16 bits are not those that the update was measured with.
    keep = dtype != computing
    kept = torch.empty(len(blocks.owners) * _BLOCK if keep else 1, dtype=computing, device=device)
    _measured[grid](*arguments, squares, kept, LIKE_ADAM=update.like_adam, KEEP=keep, **options)
    # Sums in a fixed order: the same step gives the same bits.
    # (unsafe: the lengths are not looked at, which would wait for the device.)
    sums = torch.segment_reduce(squares, "sum", lengths=blocks.counts, axis=0, unsafe=True)
    wanted, length = sums.unbind(1)
    factors = torch.where(length == 0, 0, (wanted / length).sqrt()).to(computing)
    _applied[grid](*arguments, factors, kept, KEPT=keep, **options)


class _Blocks:
    """How tensors are cut: each block's tensor and first coordinate; each tensor's length and
    number of blocks."""

    def __init__(self, numels: tuple[int, ...], device: torch.device) -> None:
        counts = torch.tensor([triton.cdiv(numel, _BLOCK) for numel in numels])
        owners = torch.arange(len(numels)).repeat_interleave(counts)
        first = counts.cumsum(0) - counts
        self.starts = ((torch.arange(len(owners)) - first[owners]) * _BLOCK).to(device)
        self.owners = owners.to(device)
        self.numels = torch.tensor(numels).to(device)
        self.counts = counts.to(device)


_cut = functools.lru_cache(maxsize=64)(_Blocks)


@triton.jit
def _block(addresses, numels, owners, starts, numbers, tensors, DTYPE: tl.constexpr,
           BLOCK: tl.constexpr):  # fmt: skip
    """The block's tensor; where its θ, gradient and moments lie, and which of them exist."""
    owner = tl.load(owners + tl.program_id(0))
    places = tl.load(starts + tl.program_id(0)) + tl.arange(0, BLOCK)
    exists = places < tl.load(numels + owner)
    row = addresses + 4 * owner
    theta = tl.load(row).to(tl.pointer_type(DTYPE)) + places
    g = tl.load(row + 1).to(tl.pointer_type(DTYPE)) + places
    m = tl.load(row + 2).to(tl.pointer_type(DTYPE)) + places
    v = tl.load(row + 3).to(tl.pointer_type(DTYPE)) + places
    root = tl.load(numbers + 7 + owner)
    rate = tl.load(numbers + 7 + tensors + owner)
    return owner, theta, g, m, v, exists, root, rate


@triton.jit
def _kept(kept, BLOCK: tl.constexpr):
    """Where the block's update is kept; all tensors together may have more than 2^31 values."""
    return kept + tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def _moments(g, m, v, exists, numbers, DTYPE: tl.constexpr, COMPUTING: tl.constexpr):
    """Both moments, moved."""
    gradient = tl.load(g, exists, 0.0).to(COMPUTING)
    first = tl.load(numbers) * tl.load(m, exists, 0.0).to(COMPUTING)
    first += tl.load(numbers + 1) * gradient
    second = tl.load(numbers + 2) * tl.load(v, exists, 0.0).to(COMPUTING)
    second += tl.load(numbers + 3) * gradient * gradient
    tl.store(m, first.to(DTYPE), exists)
    tl.store(v, second.to(DTYPE), exists)
    return first, second


@triton.jit
def _direction(first, second, numbers, root, POWERED: tl.constexpr, MOST: tl.constexpr):
    """u_1/2 and u_p, up to the bias correction of the first moment."""
    d = tl.sqrt(second) * root + tl.load(numbers + 4)
    adam = first / d
    bare = adam
    if POWERED:
        power = tl.minimum(tl.log2(d), _LARGEST_LOG) * tl.load(numbers + 5)
        bare = adam * tl.exp2(tl.minimum(power, MOST))
    return adam, bare


@triton.jit
def _moved(theta, exists, change, numbers, DTYPE: tl.constexpr, COMPUTING: tl.constexpr):
    old = tl.load(theta, exists, 0.0).to(COMPUTING)
    tl.store(theta, (old * tl.load(numbers + 6) + change).to(DTYPE), exists)


@triton.jit
def _whole(addresses, numels, owners, starts, numbers, tensors, POWERED: tl.constexpr,
           DTYPE: tl.constexpr, COMPUTING: tl.constexpr, BLOCK: tl.constexpr,
           MOST: tl.constexpr):  # fmt: skip
    """The step in one pass."""
    _owner, theta, g, m, v, exists, root, rate = _block(
        addresses, numels, owners, starts, numbers, tensors, DTYPE, BLOCK
    )
    first, second = _moments(g, m, v, exists, numbers, DTYPE, COMPUTING)
    _adam, bare = _direction(first, second, numbers, root, POWERED, MOST)
    _moved(theta, exists, bare * rate, numbers, DTYPE, COMPUTING)


@triton.jit
def _measured(addresses, numels, owners, starts, numbers, tensors, squares, kept,
              LIKE_ADAM: tl.constexpr, KEEP: tl.constexpr, DTYPE: tl.constexpr,
              COMPUTING: tl.constexpr, BLOCK: tl.constexpr, MOST: tl.constexpr):  # fmt: skip
    """The moments, and the squared lengths of a block: the one wanted, and that of u_p."""
    _owner, _theta, g, m, v, exists, root, _rate = _block(
        addresses, numels, owners, starts, numbers, tensors, DTYPE, BLOCK
    )
    first, second = _moments(g, m, v, exists, numbers, DTYPE, COMPUTING)
    adam, bare = _direction(first, second, numbers, root, True, MOST)
    if KEEP:
        tl.store(_kept(kept, BLOCK), bare)
    wanted = adam if LIKE_ADAM else first
    # Squares of powers leave single precision.
    wanted, bare = wanted.to(tl.float64), bare.to(tl.float64)
    tl.store(squares + 2 * tl.program_id(0), tl.sum(wanted * wanted))
    tl.store(squares + 2 * tl.program_id(0) + 1, tl.sum(bare * bare))


@triton.jit
def _applied(addresses, numels, owners, starts, numbers, tensors, factors, kept,
             KEPT: tl.constexpr, DTYPE: tl.constexpr,
             COMPUTING: tl.constexpr, BLOCK: tl.constexpr, MOST: tl.constexpr):  # fmt: skip
    """The update, computed again from the moments where it was not kept."""
    owner, theta, _g, m, v, exists, root, rate = _block(
        addresses, numels, owners, starts, numbers, tensors, DTYPE, BLOCK
    )
    if KEPT:
        bare = tl.load(_kept(kept, BLOCK))
    else:
        first = tl.load(m, exists, 0.0).to(COMPUTING)
        second = tl.load(v, exists, 0.0).to(COMPUTING)
        _adam, bare = _direction(first, second, numbers, root, True, MOST)
    _moved(theta, exists, bare * (rate * tl.load(factors + owner)), numbers, DTYPE, COMPUTING)
