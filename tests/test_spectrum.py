"""The half spectrum stands for the full one, exactly where it matters."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from bandwise import spectrum

sides = st.integers(1, 30)
batches = st.sampled_from([(), (3,), (2, 2)])
dtypes = st.sampled_from([torch.float64, torch.complex128])
seeds = st.integers(0, 2**31)


def random(shape, dtype, seed):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def full_place(M, d):
    """A half spectrum's values at their places, and at their conjugates', in the full one."""
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
    G_hat = spectrum.transform(G)
    assert G_hat.shape == (*batch, *spectrum.spectrum_shape(torch.Size((n, d)), dtype.is_complex))
    back = spectrum.inverse(G_hat, G)
    assert back.dtype == dtype
    torch.testing.assert_close(back, G, rtol=0, atol=1e-12)


@given(sides, sides, batches, dtypes, seeds)
def test_magnitude_is_the_full_spectrum_s(n, d, batch, dtype, seed):
    G = random((*batch, n, d), dtype, seed)
    M = spectrum.magnitude(spectrum.transform(G), G)
    right = torch.fft.fft2(G).abs()
    found = M if dtype.is_complex else full_place(M, d)
    torch.testing.assert_close(found, right, rtol=0, atol=1e-11)


@given(sides, sides, batches, st.sampled_from([torch.float32, torch.float64]), seeds)
def test_conjugate_pairs_are_equal_bit_for_bit(n, d, batch, dtype, seed):
    G = random((*batch, n, d), dtype, seed)
    M = full_place(spectrum.magnitude(spectrum.transform(G), G), d)
    mirrored = M[..., -torch.arange(n) % n, :][..., -torch.arange(d) % d]
    assert torch.equal(M, mirrored)


@given(sides, sides, batches, dtypes, st.floats(0, 1), seeds)
@example(7, 3, (), torch.float64, 0.55, 0)
@example(1, 1, (), torch.float64, 0.3, 0)
@example(4, 6, (2,), torch.float64, 1.0, 0)
@example(5, 6, (2,), torch.complex128, 0.0, 0)
def test_quantile_is_torch_s_over_the_full_spectrum(n, d, batch, dtype, q, seed):
    G = random((*batch, n, d), dtype, seed)
    M = spectrum.magnitude(spectrum.transform(G), G)
    found = spectrum.quantile(M, q, G)
    full = M if dtype.is_complex else full_place(M, d)
    right = torch.quantile(full.flatten(-2), q, dim=-1)[..., None, None]
    assert found.shape == (*batch, 1, 1)
    torch.testing.assert_close(found, right, rtol=1e-12, atol=0)


def test_quantile_leaves_what_it_is_given():
    G = random((6, 6), torch.float32, 0)
    M = spectrum.magnitude(spectrum.transform(G), G)
    before = M.clone()
    spectrum.quantile(M, 0.5, G)
    assert torch.equal(M, before)


@pytest.mark.parametrize(
    ("q", "count", "right"),
    [
        (0.55, 21, (11, 0.0)),  # 0.55 * 20 is 11.000000000000002
        (0.29, 101, (29, 0.0)),  # 0.29 * 100 is 28.999999999999996
        (0.0, 5, (0, 0.0)),
        (1.0, 5, (4, 0.0)),
        (0.5, 1, (0, 0.0)),
        (0.25, 4, (0, 0.75)),
        (0.5, 2**40 + 1, (2**39, 0.0)),
    ],
)
def test_rank(q, count, right):
    assert spectrum.rank(q, count) == right


@given(st.floats(0, 1), st.integers(1, 2**40))
def test_rank_is_the_place_and_stays_in_range(q, count):
    below, weight = spectrum.rank(q, count)
    assert 0 <= below <= count - 1
    assert 0 <= weight < 1
    assert weight == 0 or below < count - 1
    place = q * (count - 1)
    assert math.isclose(below + weight, place, rel_tol=1e-15, abs_tol=1e-300)
