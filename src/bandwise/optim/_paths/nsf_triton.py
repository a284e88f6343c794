# Triton's language has types of its own.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""NSF's kernels for a GPU, in Triton: one launch, or two, for all tensors together.

A table holds the addresses of the tensors. They are cut into blocks of one length, and every block
knows the tensor that it belongs to. ``numbers`` holds ``Update.numbers``, then ``Update.root`` of
every tensor, then ``Update.rate`` of every tensor.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from bandwise.optim._paths.nsf_update import MOST, Entry, Update, ratio

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError as error:
    raise ImportError("fused=True on a GPU needs Triton: pip install triton") from error

_BLOCK = 2048
# No finite number has a larger logarithm. An overflowed d gets this one, as 0 times inf is NaN.
_LARGEST_LOG = tl.constexpr(1024.0)
_DTYPES = {
    torch.float64: tl.float64,
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}


def step(entries: list[Entry], update: Update) -> None:
    """See ``nsf_fused.step``."""
    theta = entries[0].theta
    computing = torch.promote_types(theta.dtype, torch.float32)
    blocks = _cut(tuple(entry.theta.numel() for entry in entries), theta.device)
    addresses = [
        address
        for entry in entries
        for address in (x.data_ptr() for x in (entry.theta, entry.g, entry.m, entry.v))
    ]
    roots = [update.root(entry.t) for entry in entries]
    rates = [update.rate(entry.t) for entry in entries]
    arguments = (
        _sent(addresses, torch.int64, theta.device),
        blocks.numels,
        blocks.owners,
        blocks.starts,
        _sent([*update.numbers, *roots, *rates], computing, theta.device),
        len(entries),
    )
    options = {
        "DTYPE": _DTYPES[theta.dtype],
        "COMPUTING": _DTYPES[computing],
        "BLOCK": _BLOCK,
    }
    coupled = {"COUPLED": update.coupled != 0}
    count = len(blocks.owners)
    if not update.grafts:
        _whole[(count,)](*arguments, POWERED=update.p != 0.5, **coupled, **options)
        return
    squares = torch.empty(count, 2, dtype=torch.float64, device=theta.device)
    # The update is measured with moments that are not rounded to 16 bits yet, so it is kept.
    keep = theta.dtype != computing
    kept = torch.empty(count * _BLOCK if keep else 1, dtype=computing, device=theta.device)
    like_adam = update.scale == "adam"
    _measured[(count,)](
        *arguments, squares, kept, LIKE_ADAM=like_adam, KEEP=keep, MOST=MOST, **coupled, **options
    )
    # Sums in a fixed order: the same step gives the same bits.
    # (unsafe: torch does not look at the lengths, for which it would wait for the device.)
    sums = torch.segment_reduce(squares, "sum", lengths=blocks.counts, axis=0, unsafe=True)
    wanted, length = sums.sqrt().unbind(1)
    factors = ratio(wanted, length).to(computing)
    _applied[(count,)](*arguments, factors, kept, KEPT=keep, MOST=MOST, **options)


def _sent(values: Sequence[float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Values on the device, without waiting for it."""
    return torch.tensor(values, dtype=dtype, device="cpu").to(device, non_blocking=True)


class _Blocks:
    """How tensors are cut into blocks.

    Attributes:
        owners: the tensor of each block.
        starts: the place of each block's first number in its tensor.
        numels: the numbers in each tensor.
        counts: the blocks of each tensor.
    """

    def __init__(self, numels: tuple[int, ...], device: torch.device) -> None:
        counts = torch.tensor([triton.cdiv(numel, _BLOCK) for numel in numels], device="cpu")
        owners = torch.arange(len(numels), device="cpu").repeat_interleave(counts)
        first = counts.cumsum(0) - counts
        starts = (torch.arange(len(owners), device="cpu") - first[owners]) * _BLOCK
        self.owners, self.starts, self.counts = (x.to(device) for x in (owners, starts, counts))
        self.numels = torch.tensor(numels, device=device)


_cut = functools.lru_cache(maxsize=64)(_Blocks)


@triton.jit
def _block(addresses, numels, owners, starts, numbers, tensors, DTYPE: tl.constexpr,
           BLOCK: tl.constexpr):  # fmt: skip
    """The block's tensor, pointers to its θ, g, m and v, which of them exist, and its numbers."""
    owner = tl.load(owners + tl.program_id(0))
    places = tl.load(starts + tl.program_id(0)) + tl.arange(0, BLOCK)
    exists = places < tl.load(numels + owner)
    row = addresses + 4 * owner
    theta = tl.load(row).to(tl.pointer_type(DTYPE)) + places
    g = tl.load(row + 1).to(tl.pointer_type(DTYPE)) + places
    m = tl.load(row + 2).to(tl.pointer_type(DTYPE)) + places
    v = tl.load(row + 3).to(tl.pointer_type(DTYPE)) + places
    root = tl.load(numbers + 8 + owner)
    rate = tl.load(numbers + 8 + tensors + owner)
    return owner, theta, g, m, v, exists, root, rate


@triton.jit
def _kept(kept, BLOCK: tl.constexpr):
    """Pointers to the block's kept update. All tensors together may have over 2^31 numbers."""
    return kept + tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def _moments(theta, g, m, v, exists, numbers, COUPLED: tl.constexpr, DTYPE: tl.constexpr,
             COMPUTING: tl.constexpr):  # fmt: skip
    """Move both moments and return them."""
    gradient = tl.load(g, exists, 0.0).to(COMPUTING)
    if COUPLED:
        gradient += tl.load(numbers + 7) * tl.load(theta, exists, 0.0).to(COMPUTING)
    first = tl.load(numbers) * tl.load(m, exists, 0.0).to(COMPUTING)
    first += tl.load(numbers + 1) * gradient
    second = tl.load(numbers + 2) * tl.load(v, exists, 0.0).to(COMPUTING)
    second += tl.load(numbers + 3) * gradient * gradient
    tl.store(m, first.to(DTYPE), exists)
    tl.store(v, second.to(DTYPE), exists)
    return first, second


@triton.jit
def _directions(first, second, numbers, root, MOST: tl.constexpr):
    """u_1/2 and u_p, up to the bias correction of the first moment."""
    d = tl.sqrt(second) * root + tl.load(numbers + 4)
    adam = first / d
    power = tl.minimum(tl.log2(d), _LARGEST_LOG) * tl.load(numbers + 5)
    return adam, adam * tl.exp2(tl.minimum(power, MOST))


@triton.jit
def _moved(theta, exists, change, numbers, DTYPE: tl.constexpr, COMPUTING: tl.constexpr):
    """Decay θ and add the change."""
    old = tl.load(theta, exists, 0.0).to(COMPUTING)
    tl.store(theta, (old * tl.load(numbers + 6) + change).to(DTYPE), exists)


@triton.jit
def _whole(addresses, numels, owners, starts, numbers, tensors, POWERED: tl.constexpr,
           COUPLED: tl.constexpr, DTYPE: tl.constexpr, COMPUTING: tl.constexpr,
           BLOCK: tl.constexpr):  # fmt: skip
    """The whole step where nothing is grafted, in one pass."""
    _owner, theta, g, m, v, exists, root, rate = _block(
        addresses, numels, owners, starts, numbers, tensors, DTYPE, BLOCK
    )
    first, second = _moments(theta, g, m, v, exists, numbers, COUPLED, DTYPE, COMPUTING)
    if POWERED:
        p = tl.load(numbers + 5)
        log = tl.log2(second) + 2 * tl.log2(root)
        # At v = 0 the logarithm is -inf, and at p = 0 its product with p is NaN.
        power = tl.where(p == 0, 1.0, tl.exp2(log * p))
        # Where v has overflowed the update is 0.
        power = tl.where(second == float("inf"), second, power)
    else:
        power = tl.sqrt(second) * root
    change = first / (power + tl.load(numbers + 4)) * rate
    _moved(theta, exists, change, numbers, DTYPE, COMPUTING)


@triton.jit
def _measured(addresses, numels, owners, starts, numbers, tensors, squares, kept,
              LIKE_ADAM: tl.constexpr, KEEP: tl.constexpr, MOST: tl.constexpr,
              COUPLED: tl.constexpr, DTYPE: tl.constexpr, COMPUTING: tl.constexpr,
              BLOCK: tl.constexpr):  # fmt: skip
    """Move the moments, and sum a block's squares: of what has the wanted length, and of u_p."""
    _owner, theta, g, m, v, exists, root, _rate = _block(
        addresses, numels, owners, starts, numbers, tensors, DTYPE, BLOCK
    )
    first, second = _moments(theta, g, m, v, exists, numbers, COUPLED, DTYPE, COMPUTING)
    adam, bare = _directions(first, second, numbers, root, MOST)
    if KEEP:
        tl.store(_kept(kept, BLOCK), bare)
    wanted = adam if LIKE_ADAM else first
    # Squares of powers leave single precision.
    wanted, bare = wanted.to(tl.float64), bare.to(tl.float64)
    tl.store(squares + 2 * tl.program_id(0), tl.sum(wanted * wanted))
    tl.store(squares + 2 * tl.program_id(0) + 1, tl.sum(bare * bare))


@triton.jit
def _applied(addresses, numels, owners, starts, numbers, tensors, factors, kept,
             KEPT: tl.constexpr, MOST: tl.constexpr, DTYPE: tl.constexpr,
             COMPUTING: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """Apply the update. It is computed again from the moments where it was not kept."""
    owner, theta, _g, m, v, exists, root, rate = _block(
        addresses, numels, owners, starts, numbers, tensors, DTYPE, BLOCK
    )
    if KEPT:
        bare = tl.load(_kept(kept, BLOCK))
    else:
        first = tl.load(m, exists, 0.0).to(COMPUTING)
        second = tl.load(v, exists, 0.0).to(COMPUTING)
        _adam, bare = _directions(first, second, numbers, root, MOST)
    _moved(theta, exists, bare * (rate * tl.load(factors + owner)), numbers, DTYPE, COMPUTING)
