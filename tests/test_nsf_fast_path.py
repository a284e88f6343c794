"""The fast path of NSF against the readable one, over shapes, dtypes, settings and steps."""

import importlib
import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import bandwise as bw
from bandwise.optim._paths import nsf_fused

shapes = st.lists(
    st.sampled_from([(), (1,), (7,), (5, 8), (0, 3), (3, 2, 2), (40, 30)]), min_size=1, max_size=5
)
# Logarithms and exponentials of single precision cost a few of its last digits.
TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-5,
    torch.complex64: 2e-5,
    torch.bfloat16: 2.0**-7,
    torch.float16: 2.0**-10,
}
exponents = st.one_of(
    st.floats(-1, 1.5),
    st.sampled_from([0.5, 0.0, 0.7, bw.Cyclic(0.9, -0.5, 4), bw.Cyclic(1.5, 0.5, 3, "square")]),
)


@pytest.fixture(scope="module", params=["foreach", "fused", "fused for a GPU"])
def fast(request):
    """A fast path, for tensors of any size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bandwise.optim._paths.nsf_fused._CPU_NUMEL", 2)
        if request.param == "fused for a GPU":
            patch.setattr("bandwise.optim._paths.nsf_fused.step", kernels_for_a_gpu(patch).step)
        yield {"foreach": True} if request.param == "foreach" else {"fused": True}


def kernels_for_a_gpu(patch):
    """The kernels for a GPU, interpreted on the CPU; several blocks a tensor."""
    pytest.importorskip("triton", reason="interprets the kernels for GPUs")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: its own tests run the kernels")
    kernels = importlib.import_module("bandwise.optim._paths.nsf_triton")
    patch.setattr(kernels, "_BLOCK", 256)
    kernels._cut.cache_clear()
    return kernels


@given(
    shapes,
    st.sampled_from(list(TOLERANCE)),
    exponents,
    st.sampled_from(["adam", "sgd", "none"]),
    st.sampled_from([(0.9, 0.999), (0.0, 0.0), (0.9, 0.95)]),
    st.sampled_from([1e-8, 1e-6]),
    st.booleans(),
    st.sampled_from([0.0, 0.1]),
    st.booleans(),
    st.integers(0, 2**31),
)
# To shrink an example takes minutes in Triton's interpreter.
@settings(max_examples=80, phases=(Phase.generate,))
def test_the_same_steps(
    fast, shapes, dtype, p, scale, betas, eps, maximize, weight_decay, decoupled, seed
):  # fmt: skip
    generator = torch.Generator().manual_seed(seed)

    def draw(shape):
        return torch.randn(shape, dtype=dtype, generator=generator)

    starts = [draw(shape) for shape in shapes]
    slow, quick = (
        bw.NSF(
            [start.clone() for start in starts], lr=1e-2, p=p, scale=scale, betas=betas, eps=eps,
            maximize=maximize, weight_decay=weight_decay, decoupled_weight_decay=decoupled, **path,
        )
        for path in ({"foreach": False}, fast)
    )  # fmt: skip
    pairs = list(zip(slow.param_groups[0]["params"], quick.param_groups[0]["params"], strict=True))
    for step in range(6):
        before = [(a.clone(), b.clone()) for a, b in pairs]
        for i, (a, b) in enumerate(pairs):
            gradient = draw(a.shape) * (0 if (step + i) % 4 == 3 else 1)
            missing = (step + i) % 5 == 4
            a.grad = None if missing else gradient.clone()
            b.grad = None if missing else gradient.clone()
        slow.step()
        quick.step()
        for (a, b), (a0, b0) in zip(pairs, before, strict=True):
            # The steps must agree, not only the parameters, which outweigh them. Large exponents
            # without a scale leave 16 bits on either path.
            finite = a.isfinite()
            assert torch.equal(b.isfinite(), finite)
            moved, right = ((x - x0)[finite].to(torch.complex128) for x, x0 in ((b, b0), (a, a0)))
            slack = torch.finfo(dtype).eps * a[finite].abs().to(torch.float64).norm()
            assert (moved - right).norm() <= TOLERANCE[dtype] * right.norm() + 4 * slack
            state, right_state = quick.state[b], slow.state[a]
            assert state.keys() == right_state.keys()
            for name in state:
                torch.testing.assert_close(
                    state[name], right_state[name], rtol=TOLERANCE[dtype], atol=1e-6
                )
            # Rounding must not pile up: the next step starts from the same place.
            b.copy_(a)
            for name in state:
                state[name].copy_(right_state[name])


@pytest.mark.parametrize("p", [0.5, 0.7])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kernels_compute_in_single_precision_though_nothing_be_compiled(p, dtype, monkeypatch):
    """As after torch.compile has reached its limit of compilations, and goes on without."""
    monkeypatch.setattr("bandwise.optim._paths.nsf_fused._CPU_NUMEL", 2)
    monkeypatch.setattr("bandwise.optim._paths.nsf_cpu.compiled", lambda function: function)
    slow, quick = (
        bw.NSF([torch.ones(40, 30, dtype=dtype)], p=p, **path)
        for path in ({"foreach": False}, {"fused": True})
    )
    for _ in range(3):
        gradient = torch.randn(40, 30).to(dtype)
        for opt in (slow, quick):
            opt.param_groups[0]["params"][0].grad = gradient.clone()
            opt.step()
        (right,), (found,) = slow.state.values(), quick.state.values()
        for name in ("exp_avg", "exp_avg_sq"):
            # Once rounded, and at worst to the next number.
            torch.testing.assert_close(
                found[name], right[name], rtol=torch.finfo(dtype).eps, atol=1e-6
            )
            found[name].copy_(right[name])  # the next step starts from the same place


@pytest.mark.parametrize("p", [-1.0, 0.3, 1.0])
@pytest.mark.parametrize("scale", ["adam", "sgd"])
def test_rows_without_gradient_do_not_set_the_range(p, scale, fast):
    """As in an embedding: d is eps in most rows, and a power of it is far from the others'."""
    slow, quick = (
        bw.NSF([torch.zeros(100, 8)], lr=1.0, p=p, scale=scale, eps=1e-15, **path)
        for path in ({"foreach": False}, fast)
    )
    gradient = torch.randn(100, 8) * 1e-3
    gradient[3:] = 0
    moved = []
    for opt in (slow, quick):
        (param,) = opt.param_groups[0]["params"]
        param.grad = gradient.clone()
        opt.step()
        moved.append(param)
    torch.testing.assert_close(moved[1], moved[0], rtol=2e-5, atol=0)
    assert moved[1].norm() > 0


@pytest.mark.parametrize("fast", ["fused", "fused for a GPU"], indirect=True)
@pytest.mark.parametrize(
    ("change", "taken"),
    [
        ({}, True),
        ({"p": 0.5}, True),
        ({"fused": None}, False),
        ({"p": -1, "eps": 1e-12}, False),
        ({"p": 1, "eps": 1e-12}, True),
        ({"p": 0, "eps": 1e-12}, True),
        ({"p": -0.25, "eps": 1e-12}, True),
        ({"p": -0.7, "eps": 1e-12}, True),
        ({"p": 0.7, "eps": 1e-31}, True),
    ],
)
def test_kernels_take_what_single_precision_can_hold(fast, change, taken, monkeypatch):
    calls = []
    step = nsf_fused.step
    monkeypatch.setattr(
        "bandwise.optim._paths.nsf_fused.step",
        lambda some, *rest, **more: calls.extend(some) or step(some, *rest, **more),
    )
    params = [torch.ones(5, 4), torch.ones(4, 5).t(), torch.tensor(1.0)]
    for param in params:
        param.grad = torch.ones_like(param)
    bw.NSF(params, **{"p": 0.7, **fast, **change}).step()
    assert len(calls) == taken  # the transposed and the scalar are left to foreach
    torch.testing.assert_close(params[0], params[1], rtol=1e-6, atol=0)
    assert (params[0] < 1).all()


@pytest.mark.parametrize("p", [-1.0, -0.1, 0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("scale", ["adam", "none"])
def test_where_the_second_moment_has_overflowed_nothing_moves(p, scale, fast):
    for path in ({"foreach": False}, fast):
        param = torch.ones(100, 8)
        opt = bw.NSF([param], p=p, scale=scale, weight_decay=0.0, **path)
        param.grad = torch.ones_like(param)
        opt.step()
        opt.state[param]["exp_avg_sq"][3] = torch.inf
        before = param.clone()
        opt.step()
        assert torch.equal(param != before, (torch.arange(100) != 3)[:, None].expand(100, 8)), path


def test_without_a_compiler_fused_says_what_is_missing(tmp_path):
    code = """
import torch, bandwise as bw
param = torch.zeros(100, 100)
param.grad = torch.ones(100, 100)
bw.NSF([param], fused=True).step()
"""
    environment = {**os.environ, "CXX": "no-such", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert "RuntimeError: fused=True compiles loops for the CPU, and that failed" in done.stderr


def test_p_and_lr_change_without_compiling_again():
    params = [torch.ones(120, 100), torch.ones(9001), torch.ones(30, 20, 20)]
    opt = bw.NSF(params, p=bw.Cyclic(0.9, -0.5, 7), fused=True)
    schedule = torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)

    def step():
        for param in params:
            param.grad = torch.randn_like(param)
        opt.step()
        schedule.step()

    step()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(8):
            step()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("p", [0.5, 0.7, -0.5])
@pytest.mark.parametrize("scale", ["adam", "sgd", "none"])
def test_kernels_on_a_gpu(dtype, p, scale):
    shapes = [(300, 200), (9,), (), (70_000,), (64, 3, 3, 3)]
    torch.manual_seed(0)
    starts = [torch.randn(shape, dtype=dtype) for shape in shapes]
    slow, quick, again = (
        bw.NSF([start.clone().to(device) for start in starts], lr=1e-2, p=p, scale=scale, **path)
        for device, path in (("cpu", {"foreach": False}), *[("cuda", {"fused": True})] * 2)
    )
    for _ in range(5):
        gradients = [torch.randn(shape, dtype=dtype) for shape in shapes]
        for opt in (slow, quick, again):
            for param, gradient in zip(opt.param_groups[0]["params"], gradients, strict=True):
                param.grad = gradient.to(param.device)
            opt.step()
    trios = zip(*(opt.param_groups[0]["params"] for opt in (slow, quick, again)), strict=True)
    for a, b, c in trios:
        torch.testing.assert_close(b.cpu(), a, rtol=5 * TOLERANCE[dtype], atol=1e-6)
        assert torch.equal(b, c)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_kernels_on_a_gpu_that_is_not_the_current_one():
    slow, quick = (
        bw.NSF([torch.ones(300, 200, device=device)], lr=1e-2, **path)
        for device, path in (("cpu", {"foreach": False}), ("cuda:1", {"fused": True}))
    )
    for _ in range(3):
        gradient = torch.randn(300, 200)
        for opt in (slow, quick):
            (param,) = opt.param_groups[0]["params"]
            param.grad = gradient.to(param.device)
            opt.step()
    (right,), (found,) = (opt.param_groups[0]["params"] for opt in (slow, quick))
    torch.testing.assert_close(found.cpu(), right, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"p": 1.2}, "nsf._one_by_one"),
        ({"p": 0.5, "lr": torch.tensor(0.1)}, "_paths.nsf_foreach.step"),
        ({"eps": 0}, "nsf._one_by_one"),
        ({"foreach": False}, "nsf._one_by_one"),
        ({"foreach": True}, "_paths.nsf_foreach.step"),
        ({"p": 0.5}, "_paths.nsf_foreach.step"),
        ({"p": -1}, "_paths.nsf_foreach.step"),
    ],
)
def test_what_single_precision_cannot_hold_takes_the_readable_path(options, path, monkeypatch):
    taken = []
    for name in ("nsf._one_by_one", "_paths.nsf_foreach.step"):
        monkeypatch.setattr(f"bandwise.optim.{name}", lambda *args, name=name: taken.append(name))
    param = torch.zeros(3)
    param.grad = torch.ones(3)
    bw.NSF([param], **options).step()
    assert taken == [path]


@pytest.mark.parametrize("scale", ["adam", "sgd", "none"])
def test_nan_reaches_as_far_as_the_scale(scale):
    """A scale is a norm over the tensor; the bare formula has none."""
    for foreach in (False, True):
        param, other = torch.ones(3), torch.ones(3)
        param.grad, other.grad = torch.tensor([1.0, math.nan, 2.0]), torch.ones(3)
        bw.NSF([param, other], p=0.3, scale=scale, foreach=foreach).step()
        assert param.isnan().tolist() == [scale != "none", True, scale != "none"]
        assert other.isfinite().all()


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_at_one_half_nan_reaches_no_further_than_in_adamw(foreach, bad):
    param = torch.ones(3)
    param.grad = torch.tensor([1.0, bad, 2.0])
    bw.NSF([param], p=0.5, foreach=foreach).step()
    assert param.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("scale", ["adam", "sgd", "none"])
def test_no_value_is_waited_for_on_a_device(scale):
    """Tensors on the meta device have no values: whoever asks for one raises."""
    params = [torch.zeros(shape, device="meta") for shape in [(300, 200), (9,), ()]]
    opt = bw.NSF(params, p=bw.Cyclic(0.9, -0.5, 3), scale=scale)
    for _ in range(4):
        for param in params:
            param.grad = torch.zeros_like(param)
        opt.step()
    assert opt.state[params[0]]["step"] == 4


@pytest.mark.parametrize("foreach", [False, None])
def test_a_model_cast_after_a_step_trains_on(foreach):
    """Its state is narrower than its parameters from then on."""
    param = torch.nn.Parameter(torch.zeros(4))
    opt = bw.NSF([param], lr=1e-2, p=0.7, foreach=foreach)
    param.grad = torch.ones(4)
    opt.step()
    param.grad = None
    param.data = param.data.double()
    param.grad = torch.full((4,), -5.0, dtype=torch.float64)
    opt.step()
    assert opt.state[param]["exp_avg"].tolist() == pytest.approx([0.9 * 0.1 - 0.1 * 5] * 4)


@pytest.mark.parametrize("fast", ["foreach", "fused", "fused for a GPU"], indirect=True)
@pytest.mark.parametrize("p", [0.5, 0.7])
def test_a_default_device_or_dtype_changes_nothing(fast, p):
    def stepped():
        param = torch.ones(40, 30, dtype=torch.float32, device="cpu")
        opt = bw.NSF([param], p=p, **fast)
        for _ in range(2):
            param.grad = torch.full_like(param, 2.0)
            opt.step()
        return param, opt.state[param]

    right, right_state = stepped()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found, state = stepped()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, right)
    for name, value in right_state.items():
        assert torch.equal(state[name], value)
        assert state[name].dtype == value.dtype
