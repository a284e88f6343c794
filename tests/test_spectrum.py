"""The half spectrum gives the same results as the full one."""

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bandwise.optim import _spectrum as spectrum
from bandwise.optim._paths import quantile, smi_batched
from bandwise.optim._spectrum import Grid

sides = st.integers(1, 30)
batches = st.sampled_from([(), (3,), (2, 2)])
dtypes = st.sampled_from([torch.float64, torch.complex128])
seeds = st.integers(0, 2**31)


def random(shape, dtype, seed):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def grid_of(G):
    """The grid of each matrix in a stack."""
    n, d = G.shape[-2:]
    return Grid.of(G.new_empty(n, d))


def magnitudes(G):
    grid = grid_of(G)
    return grid.magnitude(grid.transform(G))


def full_place(M, d):
    """The full spectrum's values, from a half spectrum's values and their conjugates."""
    n = M.shape[-2]
    i, j = torch.meshgrid(torch.arange(n), torch.arange(d), indexing="ij")
    kept = j <= d // 2
    return M[..., torch.where(kept, i, -i % n), torch.where(kept, j, -j % d)]


@pytest.mark.parametrize(
    ("shape", "matrix"),
    [
        ((), (1, 1)),
        ((7,), (1, 7)),
        ((3, 5), (3, 5)),
        ((8, 4, 3, 3), (8, 36)),
        ((2, 3, 4), (2, 12)),
        ((0,), (1, 0)),
    ],
)
def test_matrix_layout(shape, matrix):
    assert spectrum.matrix_shape(torch.Size(shape)) == matrix


@given(sides, sides, batches, dtypes, seeds)
def test_round_trip(n, d, batch, dtype, seed):
    G = random((*batch, n, d), dtype, seed)
    grid = grid_of(G)
    G_hat = grid.transform(G)
    assert G_hat.shape == (*batch, *grid.shape)
    assert grid.shape == (n, d if dtype.is_complex else d // 2 + 1)
    back = grid.inverse(G_hat)
    assert back.dtype == dtype
    torch.testing.assert_close(back, G, rtol=0, atol=1e-12)


@given(sides, sides, batches, dtypes, seeds)
def test_magnitude_is_the_full_spectrum_s(n, d, batch, dtype, seed):
    G = random((*batch, n, d), dtype, seed)
    M = magnitudes(G)
    right = torch.fft.fft2(G).abs()
    found = M if dtype.is_complex else full_place(M, d)
    torch.testing.assert_close(found, right, rtol=0, atol=1e-11)


@given(sides, sides, batches, st.sampled_from([torch.float32, torch.float64]), seeds)
def test_conjugate_pairs_are_equal_bit_for_bit(n, d, batch, dtype, seed):
    G = random((*batch, n, d), dtype, seed)
    M = full_place(magnitudes(G), d)
    mirrored = M[..., -torch.arange(n) % n, :][..., -torch.arange(d) % d]
    assert torch.equal(M, mirrored)


@given(sides, sides, batches, dtypes, st.integers(0, 30), seeds)
def test_columns_of_a_spectrum_are_as_in_the_whole(n, d, batch, dtype, first, seed):
    """Processes that share a spectrum have such columns."""
    G = random((*batch, n, d), dtype, seed)
    grid = grid_of(G)
    G_hat = grid.transform(G)
    M = grid.magnitude(G_hat)
    first %= M.shape[-1]
    parts, values = [], []
    for columns in (range(first), range(first, M.shape[-1])):
        part, those = grid._replace(columns=columns), slice(columns.start, columns.stop)
        assert part.shape == (n, len(columns))
        parts.append(part.magnitude(G_hat[..., those]))
        values.append(part.ordered(M[..., those]))
    together = torch.cat(parts, dim=-1)
    torch.testing.assert_close(together, M, rtol=1e-14, atol=0)
    if not dtype.is_complex:
        mirrored = full_place(together, d)[..., -torch.arange(n) % n, :]
        assert torch.equal(mirrored[..., -torch.arange(d) % d], full_place(together, d))
    assert torch.equal(torch.cat(values, dim=-1).sort().values, grid.ordered(M))


@given(sides, sides, batches, dtypes, st.floats(0, 1), seeds)
@example(7, 3, (), torch.float64, 0.55, 0)
@example(1, 1, (), torch.float64, 0.3, 0)
@example(4, 6, (2,), torch.float64, 1.0, 0)
@example(5, 6, (2,), torch.complex128, 0.0, 0)
def test_the_threshold_keeps_what_torch_s_quantile_of_the_full_spectrum_keeps(
    n, d, batch, dtype, q, seed
):
    G = random((*batch, n, d), dtype, seed)
    M = magnitudes(G)
    found = grid_of(G).threshold(M, q)
    assert found.shape == (*batch, 1, 1)
    full = (M if dtype.is_complex else full_place(M, d)).flatten(-2)
    # The smallest value that is not below the quantile, up to the quantile's rounding.
    lower = torch.quantile(full, q, dim=-1, interpolation="lower")[..., None, None]
    higher = torch.quantile(full, q, dim=-1, interpolation="higher")[..., None, None]
    assert ((found == lower) | (found == higher)).all()
    right = torch.quantile(full, q, dim=-1)[..., None, None]
    assert (found >= right * (1 - 1e-12)).all()


@pytest.mark.parametrize(
    ("q", "count", "right"),
    [
        (0.55, 21, 11),  # 0.55 * 20 is 11.000000000000002
        (0.29, 101, 29),  # 0.29 * 100 is 28.999999999999996
        (0.0, 5, 0),
        (1.0, 5, 4),
        (0.5, 1, 0),
        (0.25, 4, 1),
        (0.5, 2**40 + 1, 2**39),
    ],
)
def test_order(q, count, right):
    assert spectrum.order(q, count) == right


@given(st.floats(0, 1), st.integers(1, 2**40))
def test_order_is_the_place_rounded_up(q, count):
    place = q * (count - 1)
    assert 0 <= spectrum.order(q, count) <= count - 1
    assert math.isclose(spectrum.order(q, count), place, rel_tol=1e-15, abs_tol=1)
    assert spectrum.order(q, count) >= place * (1 - 1e-15)


def matrices(kind, n, d, seed):
    """Real matrices with difficult spectra: smooth, tied, heavy-tailed, sparse."""
    G = random((n, d), torch.float32, seed)
    match kind:
        case "noise":
            return G
        case "constant":
            return torch.ones(n, d)
        case "one row":
            return torch.zeros(n, d).index_copy_(0, torch.tensor([0]), G[:1])
        case "heavy":
            return G.pow(5)
        case "smooth":
            return G.cumsum(0).cumsum(1)
        case "low rank":
            return G[:, :1] @ G[:1]
        case "zeros":
            return torch.zeros(n, d)


@pytest.mark.parametrize(
    "kind", ["noise", "constant", "one row", "heavy", "smooth", "low rank", "zeros"]
)
@given(
    st.integers(1, 700), st.sampled_from([64, 191, 256, 385]), st.floats(0, 1), st.integers(0, 99)
)
@settings(max_examples=25)
@example(512, 64, 0.25, 0)
@example(700, 385, 0.0, 0)
@example(700, 256, 1.0, 0)
@example(1, 1 << 16, 0.5, 0)
@example(1 << 16, 1, 0.5, 0)
def test_a_search_removes_what_the_threshold_removes(kind, n, d, q, seed):
    G = matrices(kind, n, d, seed)
    M = magnitudes(G)
    before = M.clone()
    found = quantile.removed(grid_of(G), M, q)
    assert torch.equal(found, (M < grid_of(G).threshold(M, q)).float())
    assert torch.equal(M, before)


@pytest.mark.parametrize(("n", "d"), [(64, 130), (64, 128), (64, 129), (65, 130), (65, 129)])
def test_a_search_is_not_one_short_where_a_value_stands_alone(n, d):
    """If all other values occur twice, a count that is one too small may look right."""
    rows, columns = (0, n // 2) if n % 2 == 0 else (0,), (0, d // 2) if d % 2 == 0 else (0,)
    for seed in range(20):
        G = random((n, d), torch.float32, seed)
        M = magnitudes(G)
        values = grid_of(G).ordered(M)
        for value in (M[i, j] for i in rows for j in columns):
            q = min((int((values < value).sum()) + 1) / (n * d - 1), 1.0)
            below = M < grid_of(G).threshold(M, q)
            assert torch.equal(quantile.removed(grid_of(G), M, q), below.float())


@pytest.mark.parametrize("q", [0.3, 0.5])
def test_a_search_is_right_where_its_sample_misleads(q):
    G = torch.zeros(128, 130)
    M = torch.full((128, 66), 2.0)
    M.view(-1)[quantile._sample_places(M.numel())] = 1.0
    assert grid_of(G).threshold(M, q) == 2
    assert torch.equal(quantile.removed(grid_of(G), M, q), (M == 1).float())


def test_a_search_meets_few_counts_and_selects_nothing_on_noise(monkeypatch):
    """This is the reason for searching."""
    counts = []
    count = quantile._count
    monkeypatch.setattr(quantile, "_count", lambda *args: counts.append(1) or count(*args))
    monkeypatch.delattr(quantile, "_select")
    monkeypatch.setattr(Grid, "threshold", None)
    for seed in range(20):
        G = random((600, 384), torch.float32, seed)
        M = magnitudes(G)
        quantile.removed(grid_of(G), M, 0.25)
    assert len(counts) < 20 * 10


@given(sides, sides, batches, seeds)
def test_the_quick_magnitude_is_the_magnitude(n, d, batch, seed):
    G = random((*batch, n, d), torch.float64, seed)
    grid = grid_of(G)
    G_hat = grid.transform(G)
    quick = smi_batched.quick_magnitude(grid, G_hat)
    torch.testing.assert_close(quick, grid.magnitude(G_hat), rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("peak", "fits"),
    [(1.0, True), (1e-11, True), (1e18, True), (1e-13, False), (0.0, False),
     (math.inf, False), (math.nan, False)],
)  # fmt: skip
def test_squares_fit_where_they_lose_nothing(peak, fits):
    assert smi_batched._fits(peak, torch.float32) is fits


@given(sides, sides, st.sampled_from([torch.float32, torch.complex64]))
def test_multiplicities_are_counts_of_the_full_spectrum(n, d, dtype):
    """A real matrix has one entry above 0 for each wave, a coefficient with its conjugate."""
    grid = Grid.of(torch.zeros(n, d, dtype=dtype))
    counts = grid.multiplicity(torch.device("cpu"))
    assert counts.shape == grid.shape
    assert counts.sum() == n * d
    if dtype.is_complex:
        waves = n * d
    else:
        pairs = {frozenset({(i, j), (-i % n, -j % d)}) for i in range(n) for j in range(d)}
        waves = len(pairs)
    assert (counts > 0).sum() == waves


@given(sides, sides)
def test_bands_are_those_of_the_full_spectrum(n, d):
    half, full = (Grid.of(torch.zeros(n, d, dtype=x)) for x in (torch.float32, torch.complex64))
    device = torch.device("cpu")
    assert torch.equal(full_place(half.bands(device), d), full.bands(device))
