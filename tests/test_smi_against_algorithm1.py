"""SMI equals the paper's Algorithm 1."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import bandwise as bw
from algorithm1 import Algorithm1

shapes = st.one_of(
    st.tuples(st.integers(1, 40)),
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    st.tuples(st.integers(1, 8), st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(1, 6), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
)
quantiles = st.sampled_from([0.05, 0.15, 0.25, 0.3, 0.4, 0.5, 0.9, 1.0])


def worst_error(shape, dtype, q, beta, seed, steps=50, contiguous=True, **settings):
    """The largest relative error over the steps, against Algorithm 1 in double precision."""
    generator = torch.Generator().manual_seed(seed)
    param = torch.zeros(shape, dtype=dtype)
    if not contiguous:
        param = param.mT.contiguous().mT
    alpha = bw.Cosine(0.1, 0.9)
    sgd = torch.optim.SGD([param], lr=0.0)
    opt = bw.SMI(sgd, steps, alpha=alpha, beta=beta, q=q, min_ndim=1, **settings)
    judge = Algorithm1(lambda t: alpha(t, steps), beta, q)
    judge_dtype = torch.complex128 if dtype.is_complex else torch.float64
    worst = 0.0
    for _ in range(steps):
        gradient = torch.randn(shape, dtype=judge_dtype, generator=generator).to(dtype)
        param.grad = torch.empty_like(param, memory_format=torch.preserve_format).copy_(gradient)
        assert param.grad.is_contiguous() == param.is_contiguous()
        opt.step()
        right = judge.filter(gradient.to(judge_dtype))
        error = (param.grad.to(judge_dtype) - right).norm() / right.norm()
        worst = max(worst, error.item())
    return worst


@given(shapes, quantiles, st.sampled_from([0.0, 0.9, 0.99]), st.integers(0, 2**31))
@example((2, 2), 0.5, 0.9, 0)
@example((1, 2), 0.25, 0.9, 0)
@example((7, 8), 0.25, 0.99, 0)
@example((8, 7), 0.25, 0.99, 0)
def test_float64(shape, q, beta, seed):
    assert worst_error(shape, torch.float64, q, beta, seed) < 1e-9


@given(shapes, quantiles, st.integers(0, 2**31))
def test_float32(shape, q, seed):
    assert worst_error(shape, torch.float32, q, 0.99, seed) < 1e-4


@given(shapes.filter(lambda shape: len(shape) > 1), quantiles, st.integers(0, 2**31))
def test_not_contiguous(shape, q, seed):
    assert worst_error(shape, torch.float64, q, 0.9, seed, contiguous=False) < 1e-9


@given(shapes, quantiles, st.integers(0, 2**31))
def test_complex_by_its_full_spectrum(shape, q, seed):
    assert worst_error(shape, torch.complex128, q, 0.9, seed) < 1e-9


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float16, 11), (torch.bfloat16, 8)])
def test_half_precision_is_filtered_in_float32_and_cast_back(dtype, digits):
    # The only loss is one rounding to the dtype.
    assert worst_error((24, 17), dtype, 0.25, 0.9, seed=1) < 2.0**-digits


def test_the_judge_can_fail():
    """The comparison finds a neighbouring quantile."""
    param = torch.zeros(9, 9, dtype=torch.float64)
    param.grad = torch.randn(9, 9, dtype=torch.float64)
    right = Algorithm1(lambda t: 0.5, 0.9, 0.5).filter(param.grad)
    bw.SMI(torch.optim.SGD([param], lr=0.0), alpha=0.5, beta=0.9, q=0.53).step()
    assert (param.grad - right).norm() / right.norm() > 1e-3


def test_more_than_2_to_the_24_elements():
    """Compare with the definition, since many versions of ``torch.quantile`` refuse the size."""
    shape = (4099, 4097)
    param = torch.zeros(shape)
    gradient = torch.randn(shape)
    param.grad = gradient.clone()
    bw.SMI(torch.optim.SGD([param], lr=0.0), alpha=1.0, q=0.25).step()

    M = torch.fft.fft2(gradient).abs()
    kept = M.flatten().kthvalue(round(0.25 * (M.numel() - 1)) + 1).values <= M
    right = torch.fft.ifft2(torch.fft.fft2(gradient) * kept).real
    # Rounding differs between fft2 and rfft2. So a few of 17 million coefficients, the neighbours
    # of the threshold, may differ.
    assert (param.grad - right).norm() / right.norm() < 1e-3
