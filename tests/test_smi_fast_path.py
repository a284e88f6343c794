"""SMI's fast path equals the readable one, over shapes, dtypes, settings and steps."""

import math

import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

import bandwise as bw
from bandwise.optim import _spectrum as spectrum
from bandwise.optim import smi
from bandwise.optim._paths import smi_fused, smi_update
from bandwise.optim._paths.smi_update import Entry
from bandwise.optim._spectrum import Grid
from several import Several

sides = st.integers(1, 20)
shapes = st.one_of(
    st.just(()),
    st.tuples(sides),
    st.tuples(sides, sides),
    st.tuples(sides, st.integers(1, 4), st.integers(1, 4)),
    st.sampled_from([(0, 3), (150, 230), (300, 131), (96, 96), (1, 40000)]),
)
TOLERANCE = {
    torch.float64: 1e-13,
    torch.float32: 1e-5,
    torch.complex64: 1e-5,
    torch.bfloat16: 2.0**-8,  # float32's rounding may move a result to the neighbouring number
    torch.float16: 2.0**-11,
}


def pair(shapes, dtype, fused=None, device="cpu", evaluations=1, **kwargs):
    """Two SMIs that differ in their path alone."""
    for path in ({"foreach": False}, {"fused": fused}):
        params = [torch.zeros(shape, dtype=dtype, device=device) for shape in shapes]
        base = Several(params, evaluations, lr=1.0)
        yield bw.SMI(base, 20, **path, **kwargs), params


def entries(grads):
    """Entries for gradients without state."""
    params = [torch.empty_like(grad) for grad in grads]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    return [Entry.of(param, {}) for param in params]


@pytest.mark.parametrize("at_hand", [True, False], ids=["cpu", "accelerator"])
@given(
    # Repeated shapes make batches.
    st.lists(shapes, min_size=1, max_size=3).map(lambda some: some * 3),
    st.sampled_from(list(TOLERANCE)),
    st.sampled_from([0.0, 0.15, 0.25, 0.5, 1.0]),
    st.sampled_from([bw.Cosine(0.1, 0.9), 1.0, 0.0]),
    st.sampled_from([1, 3]),
    st.sampled_from([None, torch.bfloat16, torch.float64]),
    st.sampled_from([0, 1, 2]),
    st.sampled_from(["matrix", "paper"]),
    st.integers(0, 2**31),
)
def test_the_same_filter(
    at_hand, shapes, dtype, q, alpha, refresh_every, history_dtype, evaluations, layout, seed
):
    """Also the way that a GPU takes, which may not look at a value: here on a CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spectrum, "at_hand", lambda tensor: at_hand)
        compare_paths(
            shapes, dtype, q, alpha, refresh_every, history_dtype, seed, evaluations, layout=layout
        )


@given(
    st.lists(shapes.filter(lambda shape: math.prod(shape) < 1000), min_size=1, max_size=3).map(
        lambda some: some * 2
    ),
    st.sampled_from(list(TOLERANCE)),
    st.sampled_from([0.0, 0.25, 1.0]),
    st.sampled_from([bw.Cosine(0.1, 0.9), 1.0, 0.0]),
    st.sampled_from([1, 3]),
    st.sampled_from([None, torch.float64]),
    st.sampled_from([0, 1, 2]),
    st.sampled_from(["matrix", "paper"]),
    st.integers(0, 2**31),
)
# What the kernels take, and filter.
@example(
    [(6, 5), (7, 8), (3, 4, 2)] * 2,
    torch.float32,
    0.25,
    bw.Cosine(0.1, 0.9),
    1,
    None,
    0,
    "paper",
    0,
)
@example([(40, 21)] * 3, torch.float16, 0.5, 1.0, 1, torch.float32, 0, "matrix", 0)
@example([(6, 5), (7, 8)] * 2, torch.float32, 0.25, 0.5, 1, torch.bfloat16, 2, "paper", 0)
@example([(6, 5), (7, 8)] * 2, torch.float32, 0.25, 0.0, 3, None, 2, "matrix", 0)
# To shrink an example takes minutes in Triton's interpreter.
@settings(max_examples=15, phases=(Phase.explicit, Phase.generate))
def test_the_kernels_filter_the_same(
    shapes, dtype, q, alpha, refresh_every, history_dtype, evaluations, layout, seed
):
    """Interpreted on a CPU, but for what they leave to the other path."""
    pytest.importorskip("triton", reason="interprets the kernels for GPUs")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: its own test runs the kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smi_fused, "_DEVICES", {"cpu"})
        compare_paths(
            shapes,
            dtype,
            q,
            alpha,
            refresh_every,
            history_dtype,
            seed,
            evaluations,
            fused=True,
            layout=layout,
        )


@pytest.mark.parametrize("foreach", [None, False])
def test_a_history_lies_in_rows_whatever_made_it(foreach, monkeypatch):
    """The kernels read rows. The result of an FFT on a GPU may be in columns."""
    transform = Grid.transform
    monkeypatch.setattr(Grid, "transform", lambda grid, G: transform(grid, G).mT.contiguous().mT)
    param = torch.zeros(6, 8)
    opt = bw.SMI(torch.optim.SGD([param], lr=0.1), 9, foreach=foreach)
    param.grad = torch.randn(6, 8)
    opt.step()
    assert opt.state[param]["smi_history"].is_contiguous()


@pytest.mark.parametrize(
    ("change", "gradient", "taken"),
    [
        ({}, torch.ones(8, 9), True),
        ({"history_dtype": torch.bfloat16}, torch.ones(8, 9), True),
        ({}, torch.ones(8, 9, dtype=torch.float16), True),
        ({"fused": None}, torch.ones(8, 9), False),
        ({"refresh_every": 2}, torch.ones(8, 9), True),
        ({"history_dtype": torch.float64}, torch.ones(8, 9), False),
        ({}, torch.ones(8, 9, dtype=torch.float64), False),
        ({}, torch.ones(8, 9, dtype=torch.complex64), False),
        ({}, torch.ones(9, 8).t(), False),
    ],
)
def test_what_the_kernels_take(change, gradient, taken, monkeypatch):
    pytest.importorskip("triton", reason="the kernels' module needs it")
    calls = []
    monkeypatch.setattr(
        "bandwise.optim._paths.smi_triton.step", lambda *args, **more: calls.append(args)
    )
    for devices in (set(), {"cpu"}):
        monkeypatch.setattr(smi_fused, "_DEVICES", devices)
        param = torch.zeros_like(gradient)
        param.grad = gradient.clone()
        settings = {"alpha": 0.5, "fused": True, **change}
        bw.SMI(torch.optim.SGD([param]), **settings).step()
        assert bool(calls) == (taken and bool(devices))


def test_the_kernels_leave_what_they_cannot_count(monkeypatch):
    monkeypatch.setattr(smi_fused, "_DEVICES", {"cpu"})
    (entry,) = entries([torch.ones(8, 9)])
    for limit, taken in ((72, False), (73, True)):
        monkeypatch.setattr(smi_fused, "_LIMIT", limit)
        assert smi_fused.takes(entry) == taken


def test_the_kernels_leave_a_mask_that_is_held(monkeypatch):
    """They make a mask each time: that is what they are fast at."""
    monkeypatch.setattr(smi_fused, "_DEVICES", {"cpu"})
    (entry,) = entries([torch.ones(8, 9)])
    assert smi_fused.takes(entry)
    assert not smi_fused.takes(entry._replace(mask=torch.ones(8, 5, dtype=torch.bool)))


def test_memory_does_not_grow_with_the_number_of_large_tensors():
    for shape, counts in (((4096, 4096), [2, 2, 1]), ((8192, 8192), [1] * 5), ((64, 64), [5])):
        five = entries([torch.empty(shape, device="meta") for _ in range(5)])
        batches = smi_update.batches(five, lambda entry: smi_fused.step)
        assert [len(batch) for _, batch in batches] == counts


def test_the_kernels_go_on_from_a_loaded_history_that_lies_in_columns(monkeypatch):
    pytest.importorskip("triton", reason="interprets the kernels for GPUs")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU: its own test runs the kernels")
    monkeypatch.setattr(smi_fused, "_DEVICES", {"cpu"})
    (slow, (param,)), (fast, (other,)) = pair([(6, 8)], torch.float32, fused=True, q=0.5, alpha=0.5)
    param.grad = torch.randn(6, 8)
    slow.step()
    saved = slow.state_dict()
    history = saved["state"][0]["smi_history"].mT.contiguous().mT
    settings = fast.state_dict()["param_groups"]
    settings[0]["smi_step"] = 1
    fast.load_state_dict({"state": {0: {"smi_history": history}}, "param_groups": settings})
    param.grad = torch.randn(6, 8)
    other.grad = param.grad.clone()
    slow.step()
    fast.step()
    torch.testing.assert_close(fast.state[other], slow.state[param])
    torch.testing.assert_close(other.grad, param.grad)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("fused", [None, True])
@pytest.mark.parametrize("history_dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_the_same_filter_on_a_gpu(dtype, history_dtype, fused):
    shapes = [(300, 131), (96, 96), (64, 3, 3), (7, 1), (40000,)] * 2
    compare_paths(
        shapes, dtype, 0.25, bw.Cosine(0.1, 0.9), 1, history_dtype, 0, fused=fused, device="cuda"
    )


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_the_same_filter_on_a_gpu_that_is_not_the_current_one():
    compare_paths(
        [(300, 131), (7, 9)], torch.float32, 0.25, 0.5, 1, None, 0, fused=True, device="cuda:1"
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_paths_may_take_turns_on_a_gpu():
    shapes = [(40, 31), (40, 31), (64, 3, 3)]
    (slow, params), (turns, others) = pair(
        shapes, torch.float32, None, "cuda", q=0.25, alpha=0.5, beta=0.8, min_ndim=1
    )
    for step in range(6):
        turns.param_groups[0]["smi_fused"] = [True, None][step % 2]
        for a, b in zip(params, others, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        slow.step()
        turns.step()
        for a, b in zip(params, others, strict=True):
            torch.testing.assert_close(b.grad, a.grad)
            torch.testing.assert_close(turns.state[b], slow.state[a])


def compare_paths(
    shapes, dtype, q, alpha, refresh_every, history_dtype, seed, evaluations=0, fused=None,
    device="cpu", layout="matrix",
):  # fmt: skip
    """Over six steps of so many evaluations each; with 0 there is no closure."""
    generator = torch.Generator(device).manual_seed(seed)
    both = list(pair(
        shapes, dtype, fused, device, evaluations, q=q, alpha=alpha, beta=0.8, min_ndim=1,
        refresh_every=refresh_every, history_dtype=history_dtype, layout=layout,
    ))  # fmt: skip
    for step in range(6):
        gradients = [
            [
                None if (step + i) % 5 == 3 else torch.randn(
                    shape, dtype=dtype, generator=generator, device=device
                )
                for i, shape in enumerate(shapes)
            ]
            for _ in range(max(evaluations, 1))
        ]  # fmt: skip
        for i, gradient in enumerate(gradients[0]):
            if gradient is not None and (step + i) % 7 == 5:
                gradient.view(-1)[:1] = math.nan
        for opt, params in both:
            opt.base.noted.clear()
            take_step(opt, params, gradients, evaluations)
        (slow, slow_params), (fast, fast_params) = both
        for one, other in zip(slow.base.noted, fast.base.noted, strict=True):
            for a, b in zip(one, other, strict=True):
                assert (a is None) == (b is None)
                if a is not None:
                    same_gradients(a, b, dtype)
        for a, b in zip(slow_params, fast_params, strict=True):
            a_state, b_state = slow.state.get(a, {}), fast.state.get(b, {})
            assert a_state.keys() == b_state.keys()
            if "smi_history" in a_state:
                histories = a_state["smi_history"], b_state["smi_history"]
                assert histories[0].shape == histories[1].shape
                assert histories[0].dtype == histories[1].dtype
            if "smi_mask" in a_state:
                assert torch.equal(a_state["smi_mask"], b_state["smi_mask"])


def take_step(opt, params, gradients, evaluations):
    coming = iter(gradients)

    def closure():
        for param, gradient in zip(params, next(coming), strict=True):
            param.grad = None if gradient is None else gradient.clone()
        return 0.0

    if evaluations:
        opt.step(closure)
    else:
        closure()
        opt.step()


def same_gradients(a, b, dtype):
    assert a.isfinite().all() == b.isfinite().all()
    if a.isfinite().all():
        error = (a - b).abs().to(torch.float64).norm()
        assert error <= TOLERANCE[dtype] * a.to(torch.complex128).norm()


def test_zeros_and_small_magnitudes_stay_in_the_batch(monkeypatch):
    """Only these are computed without squares. The readable path does not run."""
    monkeypatch.setattr(smi, "_one_by_one", None)
    monkeypatch.setattr(smi, "_single_tensor", None)
    exact, batches = [], []
    magnitude, transform = Grid.magnitude, Grid.transform
    monkeypatch.setattr(
        Grid, "magnitude", lambda grid, G_hat: exact.append(G_hat.shape) or magnitude(grid, G_hat)
    )
    monkeypatch.setattr(
        Grid, "transform", lambda grid, G: batches.append(len(G)) or transform(grid, G)
    )
    _, (opt, params) = pair([(96, 96)] * 7, torch.float32, q=0.5, alpha=1.0)
    for param, size in zip(params, (1.0, 0.0, 1.0, 1e-30, 1.0, 1.0, 1.0), strict=True):
        param.grad = torch.randn(96, 96) * size
    opt.step()
    assert batches == [7]
    assert exact == [(96, 49)] * 2


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12, 1e30])
def test_magnitudes_whose_squares_leave_float32(scale):
    """The fast magnitude would lose them. The result equals the slow path's.

    This holds even if another gradient of the batch has usual magnitudes.
    """
    (slow, params), (fast, others) = pair([(40, 30)] * 2, torch.float32, q=0.5, alpha=1.0)
    for a, b, size in zip(params, others, (scale, 1.0), strict=True):
        a.grad = torch.randn(40, 30) * size
        b.grad = a.grad.clone()
    slow.step()
    fast.step()
    for a, b, size in zip(params, others, (scale, 1.0), strict=True):
        assert torch.equal(a.grad, b.grad)
        assert slow.state[a]["smi_history"].max() > size or size == 0
        torch.testing.assert_close(fast.state[b]["smi_history"], slow.state[a]["smi_history"])


def test_two_threads_give_the_result_of_one():
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        generator = torch.Generator().manual_seed(0)
        _, (fast, params) = pair([(600, 400)] * 2 + [(64, 64)] * 5, torch.float32, q=0.3)
        for _ in range(3):
            for param in params:
                param.grad = torch.randn(param.shape, generator=generator)
            fast.step()
        results.append(params)
    for one, two in zip(*results, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_the_choice_of_path_is_checked():
    with pytest.raises(TypeError, match="foreach must be True or False, got 1"):
        bw.SMI(torch.optim.SGD([torch.zeros(2, 2)]), 5, foreach=1)
    with pytest.raises(TypeError, match="fused must be True or False, got 1"):
        bw.SMI(torch.optim.SGD([torch.zeros(2, 2)]), 5, fused=1)
    for foreach in (True, False):
        with pytest.raises(
            ValueError, match=f"foreach must be None where fused is True, got {foreach}"
        ):
            bw.SMI(torch.optim.SGD([torch.zeros(2, 2)]), 5, foreach=foreach, fused=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("foreach", [False, None])
def test_no_value_is_waited_for_on_a_device(dtype, foreach):
    """Tensors on the meta device have no values. Code that reads one raises."""
    params = [torch.zeros(shape, dtype=dtype, device="meta") for shape in [(300, 200)] * 3 + [(9,)]]
    opt = bw.SMI(torch.optim.SGD(params, lr=0.1), 20, min_ndim=1, refresh_every=2, foreach=foreach)
    for _ in range(4):
        for param in params:
            param.grad = torch.zeros_like(param)
        opt.step()
    assert opt.state[params[0]]["smi_history"].device.type == "meta"
