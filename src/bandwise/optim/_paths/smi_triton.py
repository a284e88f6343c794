# Triton's language has types of its own.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
"""SMI's filter on a GPU, in Triton: all work between the two transforms.

One launch serves all matrices of a batch. Nothing is sorted, and the host waits for nothing.

The threshold is found digit by digit. Magnitudes read as integers keep their order. A histogram of
their highest eight bits gives the highest eight bits of the threshold. A second histogram, of the
magnitudes that share these bits, gives the next eight. After four histograms the threshold is known
to the last bit.
"""

import torch

from bandwise.optim._paths.smi_update import Entry, Update, keep_masks

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


def step(entries: list[Entry], update: Update) -> None:
    """Filter gradients of one shape and dtype, contiguous, on one GPU.

    The histories have one dtype, and are contiguous.
    """
    # Kernels run on the current device, wherever their tensors are.
    with torch.cuda.device_of(entries[0].grad):
        _step(entries, update)


def _step(entries: list[Entry], update: Update) -> None:
    grads = [entry.grad for entry in entries]
    grid = entries[0].grid
    n, m = grid.shape
    size, numel, batch = n * m, n * grid.d, len(grads)
    device = grads[0].device
    # An FFT may return its result in any order in memory.
    G_hat = grid.transform(torch.stack([grid.matrix(grad) for grad in grads])).contiguous()
    M = torch.empty(batch, n, m, device=device)
    # Of each matrix: whether it has a value that is not finite, whether its history begins.
    flags = torch.zeros(batch, 2, dtype=torch.int32, device=device)
    tallies = torch.zeros(batch, 2 * _VALUES.value, dtype=torch.int32, device=device)
    found = torch.zeros(batch, dtype=torch.int32, device=device)
    left = torch.full((batch,), grid.place(update.q), dtype=torch.int32, device=device)

    places = [[entry.grad.data_ptr(), entry.history.data_ptr()] for entry in entries]
    # The host does not wait for the copy.
    addresses = torch.tensor(places, dtype=torch.int64).to(device, non_blocking=True)
    parts = torch.view_as_real(G_hat)
    kept, stored = entries[0].history.dtype, grads[0].dtype
    largest = torch.finfo(kept).max
    blocks = (triton.cdiv(size, _BLOCK), batch)
    even = grid.d % 2 == 0

    _magnitudes[blocks](parts, M, addresses, flags, n, m, even, _DTYPES[kept], _BLOCK)
    # 1 - beta is computed here: single precision would round beta first.
    _averaged[blocks](
        M, addresses, flags, tallies, n, m, even, 1 - update.beta, largest, _DTYPES[kept],
        _SHIFTS[0], _BLOCK,
    )  # fmt: skip
    if not (update.blends or update.keeps_masks):
        return
    for shift in _SHIFTS:
        if shift != _SHIFTS[0]:
            _tallied[blocks](M, found, tallies, n, m, even, shift, _BLOCK)
        _chosen[(batch,)](tallies, found, left)
    keep_masks(entries, M.view(torch.int32) < found[:, None, None], update)
    if not update.blends:
        return
    _weighed[blocks](parts, M, found, n, m, update.alpha, _BLOCK)
    del M
    filtered = grid.inverse(G_hat).contiguous()
    _returned[(triton.cdiv(numel, _BLOCK), batch)](
        filtered, addresses, flags, numel, _DTYPES[stored], _BLOCK
    )


@triton.jit
def _modulus(spectrum, index, exists):
    """The modulus of a coefficient; NaN if a part is not finite."""
    re = tl.load(spectrum + 2 * index, exists, 0.0)
    im = tl.load(spectrum + 2 * index + 1, exists, 0.0)
    # The squares of the parts could leave the range of single precision.
    large = tl.maximum(tl.abs(re), tl.abs(im))
    small = tl.minimum(tl.abs(re), tl.abs(im))
    ratio = small / tl.where(large == 0, 1.0, large)
    return large * tl.sqrt(1 + ratio * ratio) + (re - re) + (im - im)


@triton.jit
def _own(index, n, m, EVEN: tl.constexpr):
    """Whether a coefficient lies in an own column, see ``_spectrum``."""
    column = index % m
    own = column == 0
    if EVEN:
        own = own | (column == m - 1)
    return own


@triton.jit
def _magnitudes(parts, M, addresses, flags, n, m, EVEN: tl.constexpr, KEPT: tl.constexpr,
                BLOCK: tl.constexpr):  # fmt: skip
    """M, equal within conjugate pairs, and the flags."""
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
        first = tl.load(history).to(tl.float32)
        # NaN: there is no history yet.
        tl.store(flags + 2 * batch + 1, (first != first).to(tl.int32))


@triton.jit
def _averaged(M, addresses, flags, tallies, n, m, EVEN: tl.constexpr, weight, largest,
              KEPT: tl.constexpr, SHIFT: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """H, written to the history and over M, and the tally of its first digit."""
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
    # As in bounded: no infinity in a smaller dtype, and NaN stays.
    tl.store(history + index, tl.where(new > largest, largest, new).to(KEPT), exists)
    _tally(new, exists, index, tallies + 2 * _VALUES * batch, n, m, EVEN, SHIFT)


@triton.jit
def _tallied(M, found, tallies, n, m, EVEN: tl.constexpr, SHIFT: tl.constexpr,
             BLOCK: tl.constexpr):  # fmt: skip
    """The tally of a later digit, of the magnitudes that share all digits found before."""
    batch = tl.program_id(1)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = index < n * m
    H = tl.load(M + batch.to(tl.int64) * n * m + index, exists, 0.0)
    alike = (H.to(tl.int32, bitcast=True) >> (SHIFT + _DIGIT)) == tl.load(found + batch)
    _tally(H, exists & alike, index, tallies + 2 * _VALUES * batch, n, m, EVEN, SHIFT)


@triton.jit
def _tally(H, counted, index, tallies, n, m, EVEN: tl.constexpr, SHIFT: tl.constexpr):
    """Count the values of a digit, apart for coefficients that stand for two and for one."""
    digit = (H.to(tl.int32, bitcast=True) >> SHIFT) & (_VALUES - 1)
    digit += tl.where(_own(index, n, m, EVEN), _VALUES, 0)
    counts = tl.histogram(digit, 2 * _VALUES, mask=counted)
    tl.atomic_add(tallies + tl.arange(0, 2 * _VALUES), counts, mask=counts > 0)


@triton.jit
def _chosen(tallies, found, left):
    """The threshold's digit, and its place among the values that share the digit."""
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
    """The spectrum of the blend: a removed coefficient is left with 1 - alpha of itself."""
    batch = tl.program_id(1)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = index < n * m
    H = tl.load(M + batch.to(tl.int64) * n * m + index, exists, 0.0)
    removed = exists & (H.to(tl.int32, bitcast=True) < tl.load(found + batch))
    spectrum = parts + 2 * batch.to(tl.int64) * n * m + 2 * index
    # Coefficients that are kept need no access.
    tl.store(spectrum, tl.load(spectrum, removed, 0.0) * (1 - alpha), removed)
    tl.store(spectrum + 1, tl.load(spectrum + 1, removed, 0.0) * (1 - alpha), removed)


@triton.jit
def _returned(filtered, addresses, flags, numel, STORED: tl.constexpr, BLOCK: tl.constexpr):
    """Write the blended gradient over the gradient, if that was finite."""
    batch = tl.program_id(1)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    wanted = index < tl.where(tl.load(flags + 2 * batch) > 0, 0, numel)
    value = tl.load(filtered + batch.to(tl.int64) * numel + index, wanted, 0.0)
    grad = tl.load(addresses + 2 * batch).to(tl.pointer_type(STORED))
    tl.store(grad + index, value.to(STORED), wanted)
