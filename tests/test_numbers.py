"""Very small and very large gradients, on every path."""

import math

import pytest
import torch

import bandwise as bw
from algorithm1 import Algorithm1

EXPONENTS = [0.7, 0.5, 0.0, -0.25]
SCALES = ["adam", "sgd", "none"]
PATHS = [{"foreach": False}, {}, {"fused": True}]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(autouse=True)
def _kernels_for_tensors_of_any_size(monkeypatch):
    monkeypatch.setattr("bandwise.optim._paths.nsf_fused._CPU_NUMEL", 2)


def noise(shape, dtype, size=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, dtype=torch.float64, generator=generator) * size).to(dtype)


def nsf_moves(p, scale, dtype, gradients, **path):
    """The values of a tensor after each step from zero."""
    param = torch.zeros(gradients[0].shape, dtype=dtype)
    opt = bw.NSF([param], lr=0.01, p=p, scale=scale, weight_decay=0.0, **path)
    places = []
    for gradient in gradients:
        param.grad = gradient.clone()
        opt.step()
        places.append(param.clone())
    return places, opt.state[param]


# ---------------------------------------------------------------- NSF


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-8, 1e4])
def test_nsf_at_small_and_large_gradients(dtype, p, scale, size):
    """Every path follows the equations. 1e-30 is zero in float16, and its square in all dtypes."""
    gradients = [noise((6, 7), dtype, size, seed) for seed in range(4)]
    right, _ = nsf_moves(p, scale, dtype, gradients, **PATHS[0])
    for path in PATHS[1:]:
        found, _ = nsf_moves(p, scale, dtype, gradients, **path)
        for a, b in zip(found, right, strict=True):
            slack = 200 * torch.finfo(torch.float32).eps + 2 * torch.finfo(dtype).eps
            if dtype == torch.float32:
                slack /= 2
            assert b.isfinite().all()
            if (size, scale, path) == (1e-30, "sgd", {}):
                # It squares the momentum in single precision, so a step of 1e-32 becomes 0.
                assert (a == 0).all()
                continue
            # v in 16 bits underflows to zero where the gradient's square does.
            torch.testing.assert_close(a, b, rtol=slack, atol=slack * b.abs().max().item())


@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("path", PATHS, ids=str)
@pytest.mark.parametrize("size", [1e20, 1e22, 1e30, 1e38])
def test_nsf_where_squares_overflow(p, path, size):
    """v becomes and stays infinite. Its coordinates do not move, as in AdamW. The others do."""
    gradients = [noise(64, torch.float32, size, seed).clamp(-3e38, 3e38) for seed in range(3)]
    for gradient in gradients:
        gradient[:8] = 1.0
    places, state = nsf_moves(p, "adam", torch.float32, gradients, **path)
    assert all(place.isfinite().all() for place in places)
    stuck = state["exp_avg_sq"].isinf()
    assert stuck[8:].any() == (size > 1e20)
    assert not stuck[:8].any()
    assert torch.equal(places[-1][stuck], places[-2][stuck])
    # Adam's length: at most lr per coordinate and step, up to the bias correction.
    assert places[0].norm() <= 0.01 * math.sqrt(64) * 1.01


@pytest.mark.parametrize("scale", ["adam", "none"])
def test_at_one_half_an_overflow_is_adamw_s(scale):
    gradients = [noise(64, torch.float32, 1e22, seed) for seed in range(3)]
    ours, _ = nsf_moves(0.5, scale, torch.float32, gradients)
    param = torch.zeros(64)
    adamw = torch.optim.AdamW([param], lr=0.01, weight_decay=0.0)
    for gradient, place in zip(gradients, ours, strict=True):
        param.grad = gradient.clone()
        adamw.step()
        torch.testing.assert_close(place, param)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("p", EXPONENTS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("path", PATHS, ids=str)
def test_nsf_never_hides_a_gradient_that_is_not_finite(bad, p, scale, path):
    """It appears in its own tensor and in no other."""
    one, other = torch.zeros(6, 7), torch.zeros(6, 7)
    opt = bw.NSF([one, other], p=p, scale=scale, **path)
    one.grad, other.grad = noise((6, 7), torch.float32), noise((6, 7), torch.float32)
    one.grad[2, 3] = bad
    opt.step()
    assert not one[2, 3].isfinite()
    assert other.isfinite().all()
    assert (other != 0).all()


# ---------------------------------------------------------------- SMI


def filtered(gradient, steps=1, **settings):
    """The gradient after SMI. Every step gets the same one."""
    param = torch.zeros_like(gradient)
    opt = bw.SMI(torch.optim.SGD([param], lr=0.0), min_ndim=1, **{"alpha": 0.5, **settings})
    for _ in range(steps):
        param.grad = gradient.clone()
        opt.step()
    return param.grad, opt.state[param]


@pytest.mark.parametrize("foreach", [False, None])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-8, 1e4, 1e30])
def test_smi_at_small_and_large_gradients(dtype, size, foreach):
    gradient = noise((6, 7), dtype, size)
    found, state = filtered(gradient, 3, foreach=foreach)
    if not gradient.isfinite().all():  # float16 ends at 65504
        assert torch.equal(found, gradient)
        return
    judge = Algorithm1(lambda t: 0.5, 0.99, 0.25)
    for _ in range(3):
        right = judge.filter(gradient.double())
    assert state["smi_history"].isfinite().all()
    slack = 2 * torch.finfo(dtype).eps
    smallest = torch.finfo(dtype).tiny
    torch.testing.assert_close(
        found.double(), right, rtol=slack, atol=max(slack * right.abs().max().item(), smallest)
    )


@pytest.mark.parametrize("foreach", [False, None])
@pytest.mark.parametrize("shape", [(6, 7), (1, 9), (9, 1), (1, 1), (70, 130)])
@pytest.mark.parametrize("q", [0.25, 0.5, 1.0])
def test_smi_of_a_constant_matrix_keeps_it(shape, q, foreach):
    """Only one coefficient is not zero. All others, zeros or rounding, may be removed."""
    gradient = torch.full(shape, 0.375)
    found, _ = filtered(gradient, 3, q=q, alpha=1.0, foreach=foreach)
    torch.testing.assert_close(found, gradient)


@pytest.mark.parametrize("foreach", [False, None])
@pytest.mark.parametrize("q", [0.25, 0.5, 1.0])
def test_smi_keeps_all_where_all_magnitudes_tie(q, foreach):
    """A single spike has a flat spectrum. No magnitude is below any quantile."""
    gradient = torch.zeros(8, 16)
    gradient[0, 0] = 1.0
    found, state = filtered(gradient, 3, q=q, beta=0.5, alpha=1.0, foreach=foreach)
    assert (state["smi_history"] == 1).all()
    torch.testing.assert_close(found, gradient)


@pytest.mark.parametrize("foreach", [False, None])
@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_what_is_not_finite_in_one_tensor_stays_there(bad, where, foreach):
    """Tensors of one shape share a transform. The others are filtered as usual."""
    params = [torch.zeros(6, 7) for _ in range(3)]
    opt = bw.SMI(torch.optim.SGD(params, lr=0.0), alpha=0.5, foreach=foreach)
    for i, param in enumerate(params):
        param.grad = noise((6, 7), torch.float32, seed=i)
        if i == where:
            param.grad[1, 1] = bad
    opt.step()
    for i, param in enumerate(params):
        gradient = noise((6, 7), torch.float32, seed=i)
        if i == where:
            gradient[1, 1] = bad
            torch.testing.assert_close(param.grad, gradient, equal_nan=True, rtol=0, atol=0)
        else:
            torch.testing.assert_close(param.grad, filtered(gradient, foreach=foreach)[0])


@pytest.mark.parametrize("foreach", [False, None])
def test_a_held_mask_waits_for_a_finite_gradient_until_it_is_made_anew(foreach):
    """Only a wait for the device could tell whether the first gradient is finite."""
    param = torch.zeros(6, 7)
    opt = bw.SMI(torch.optim.SGD([param], lr=0.0), alpha=0.5, refresh_every=3, foreach=foreach)
    judge = Algorithm1(lambda t: 0.5, 0.99, 0.25)
    for t in range(5):
        gradient = noise((6, 7), torch.float32, seed=t)
        param.grad = gradient.clone() if t else torch.full((6, 7), math.nan)
        opt.step()
        right = judge.filter(gradient) if t else None
        if t in (1, 2):  # nothing is filtered ...
            torch.testing.assert_close(param.grad, gradient)
        if t == 3:  # ... until here
            torch.testing.assert_close(param.grad, right)
