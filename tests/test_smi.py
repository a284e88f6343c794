"""SMI around its base: its settings, its limits and its errors."""

import collections
import copy
import math
import pickle
import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import bandwise as bw
from algorithm1 import Algorithm1
from bandwise.optim import _spectrum as spectrum
from bandwise.optim._spectrum import Grid


def sgd(params, **settings):
    return torch.optim.SGD(params, lr=0.0, **settings)


def filtered(gradient, opt, param=None):
    """The gradient after a step of ``opt``."""
    param = opt.param_groups[0]["params"][0] if param is None else param
    param.grad = gradient.clone()
    opt.step()
    return param.grad


def judged(gradients, q=0.25, beta=0.99, alpha=0.5):
    """The last gradient, filtered by Algorithm 1 after all others."""
    judge = Algorithm1(alpha if callable(alpha) else lambda t: alpha, beta, q)
    return [judge.filter(gradient) for gradient in gradients][-1]


@pytest.fixture
def param():
    return torch.nn.Parameter(torch.randn(6, 7, dtype=torch.float64))


@pytest.fixture
def gradients():
    return list(torch.randn(12, 6, 7, dtype=torch.float64))


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("name", "beta", "q", "alpha"),
    [
        ("adamw", 0.99, 0.25, bw.Cosine(0.1, 0.5)),
        ("adam", 0.995, 0.25, bw.Cosine(0.1, 0.5)),
        ("sgd", 0.9, 0.3, bw.Linear(0.1, 0.4)),
        ("lion", 0.99, 0.4, bw.Linear(0.1, 0.3)),
        ("noisy", 0.99, 0.5, bw.Cosine(0.1, 0.5)),
        ("stable-tasks", 0.99, 0.15, bw.Cosine(0.1, 0.5)),
        ("stable-gradients", 0.999, 0.25, bw.Cosine(0.1, 0.5)),
        ("dynamic", 0.95, 0.25, bw.Cosine(0.1, 0.5)),
        ("conservative", 0.99, 0.25, bw.Linear(0.1, 0.3)),
        ("aggressive", 0.99, 0.25, bw.Cosine(0.1, 0.7)),
    ],
)
def test_presets_are_section_3_6(name, beta, q, alpha, param):
    group = bw.SMI.preset(name, sgd([param]), 100).param_groups[0]
    assert (group["smi_beta"], group["smi_q"], group["smi_alpha"]) == (beta, q, alpha)
    assert group["smi_total_steps"] == 100
    assert (group["smi_min_ndim"], group["smi_refresh_every"]) == (2, 1)


def test_an_unknown_preset_names_those_there_are(param):
    with pytest.raises(ValueError, match=r"adamw, adam, sgd, .*aggressive, got 'adamW'"):
        bw.SMI.preset("adamW", sgd([param]), 100)


WRONG = [
    ({"alpha": 1.5}, ValueError, "alpha must be at most 1, got 1.5"),
    (
        {"alpha": "cosine"},
        TypeError,
        r"alpha must be a number or a schedule such as Cosine\(0.1, 0.5\), got 'cosine'",
    ),
    ({"alpha": bw.Linear(0.1, 2.0)}, ValueError, "alpha must stay within .0, 1., got Linear"),
    ({"alpha": bw.Cyclic(0.5, -0.1, 8)}, ValueError, "alpha must stay within .0, 1."),
    ({"total_steps": None}, ValueError, r"Cosine.* needs total_steps"),
    ({"total_steps": 0}, ValueError, "total_steps must be at least 1, got 0"),
    ({"total_steps": 1e4}, TypeError, "total_steps must be an int, got 10000.0"),
    ({"beta": 1.0}, ValueError, "beta must be below 1, got 1.0"),
    ({"beta": -0.1}, ValueError, "beta must be at least 0, got -0.1"),
    ({"beta": True}, TypeError, "beta must be a number, got True"),
    ({"q": 1.01}, ValueError, "q must be at most 1, got 1.01"),
    ({"q": -0.1}, ValueError, "q must be at least 0, got -0.1"),
    ({"q": math.nan}, ValueError, "q must be finite, got nan"),
    ({"q": bw.Constant(0.5)}, TypeError, r"q must be a number, got Constant"),
    ({"min_ndim": 1.5}, TypeError, "min_ndim must be an int, got 1.5"),
    ({"min_ndim": -1}, ValueError, "min_ndim must be at least 0, got -1"),
    ({"refresh_every": 0}, ValueError, "refresh_every must be at least 1, got 0"),
    ({"history_dtype": "bf16"}, TypeError, "history_dtype must be a torch.dtype or None, got 'bf1"),
    ({"history_dtype": torch.int8}, ValueError, "history_dtype must be a floating dtype, got torc"),
]


@pytest.mark.parametrize(("settings", "error", "message"), WRONG, ids=lambda x: str(x)[:40])
def test_a_wrong_argument_leaves_the_base_as_it_was(settings, error, message, param):
    base = torch.optim.AdamW([param])
    before = [dict(group) for group in base.param_groups]
    with pytest.raises(error, match=message):
        bw.SMI(base, **{"total_steps": 10, **settings})
    assert [dict(group) for group in base.param_groups] == before
    assert bw.SMI(base, 10).base is base


@pytest.mark.parametrize(("settings", "error", "message"), WRONG, ids=lambda x: str(x)[:40])
def test_a_wrong_group_is_refused(settings, error, message, param):
    settings = {f"smi_{key}": value for key, value in settings.items()}
    other = torch.nn.Parameter(torch.ones(2, 2))
    base = torch.optim.AdamW([{"params": [param]}, {"params": [other], **settings}])
    before = [dict(group) for group in base.param_groups]
    with pytest.raises(error, match=message):
        bw.SMI(base, 10)
    assert [dict(group) for group in base.param_groups] == before
    opt = bw.SMI(torch.optim.AdamW([param]), 10)
    with pytest.raises(error, match=message):
        opt.add_param_group({"params": [other], **settings})
    assert len(opt.param_groups) == 1


def test_smi_of_a_group_is_true_or_false(param):
    base = sgd([{"params": [param], "smi": 1}])
    with pytest.raises(TypeError, match="smi must be True or False, got 1"):
        bw.SMI(base, 10)


def test_what_cannot_be_wrapped(param):
    with pytest.raises(TypeError, match=r"base must be a torch.optim.Optimizer, got list"):
        bw.SMI([param], 10)
    opt = bw.SMI(sgd([param]), 10)
    with pytest.raises(ValueError, match=r"^base is filtered already: make a new optimizer"):
        bw.SMI(opt, 10)
    # A base cannot be wrapped twice, because the first SMI's settings would stay in its groups.
    with pytest.raises(ValueError, match=r"^base is filtered already: make"):
        bw.SMI(opt.base, 10, q=0.5)


# ---------------------------------------------------------------- the filter's limits


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"alpha": 0.5, "q": 0.0}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("foreach", [None, False])
def test_no_filter_is_the_base_exactly(foreach, settings, dtype):
    start = torch.randn(9, 8).to(dtype)
    params = [torch.nn.Parameter(start.clone()) for _ in range(2)]
    opt = bw.SMI(torch.optim.AdamW(params[:1], lr=0.1), foreach=foreach, **settings)
    bare = torch.optim.AdamW(params[1:], lr=0.1)
    for _ in range(10):
        gradient = torch.randn(9, 8).to(dtype)
        for param in params:
            param.grad = gradient.clone()
        opt.step()
        bare.step()
        assert torch.equal(params[0].grad, gradient)
    assert torch.equal(*params)
    assert (opt.state[params[0]]["smi_history"] > 0).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("refresh_every", [1, 3])
def test_a_gradient_that_is_not_finite_passes_and_leaves_no_trace(
    bad, refresh_every, param, gradients
):
    opt = bw.SMI(sgd([param]), alpha=0.5, refresh_every=refresh_every)
    for gradient in gradients[:2]:
        filtered(gradient, opt)
    history = opt.state[param]["smi_history"].clone()
    broken = gradients[2].clone()
    broken[1, 2] = bad
    after = filtered(broken, opt)
    assert torch.equal(after, broken) or math.isnan(bad)
    assert torch.equal(after.nan_to_num(7.0), broken.nan_to_num(7.0))
    assert torch.equal(opt.state[param]["smi_history"], history)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_first_finite_gradient_starts_the_history(bad, param, gradients):
    opt = bw.SMI(sgd([param]), alpha=0.5)
    for _ in range(2):
        assert (filtered(torch.full_like(param, bad), opt).isnan() == math.isnan(bad)).all()
        assert opt.state[param]["smi_history"].isnan().all()
    for t in range(3):
        found = filtered(gradients[t], opt)
        torch.testing.assert_close(found, judged(gradients[: t + 1]))


def test_a_finite_gradient_whose_spectrum_overflows_passes(param):
    huge = torch.full((6, 7), 3e38)
    single = torch.nn.Parameter(torch.zeros(6, 7))
    opt = bw.SMI(sgd([single]), alpha=0.5)
    assert torch.equal(filtered(huge, opt), huge)
    assert opt.state[single]["smi_history"].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gradient_of_zeros_stays_zero(dtype):
    single = torch.nn.Parameter(torch.zeros(4, 4, dtype=dtype))
    opt = bw.SMI(sgd([single]), alpha=0.5)
    for _ in range(2):
        assert (filtered(torch.zeros(4, 4, dtype=dtype), opt) == 0).all()


def test_after_total_steps_alpha_stays(param, gradients):
    opt = bw.SMI(sgd([param]), 3, alpha=bw.Linear(0.0, 0.9))
    for t, gradient in enumerate(gradients):
        found = filtered(gradient, opt)
        right = judged(gradients[: t + 1], alpha=lambda t: 0.9 * min(t, 3) / 3)
        torch.testing.assert_close(found, right)


def test_q_of_1_keeps_the_greatest_alone(param, gradients):
    found = filtered(gradients[0], bw.SMI(sgd([param]), alpha=1.0, q=1.0))
    left = torch.fft.fft2(found).abs() > 1e-9
    assert left.sum() in (1, 2)
    assert (
        torch.fft.fft2(gradients[0]).abs()[left].max() == torch.fft.fft2(gradients[0]).abs().max()
    )


@pytest.mark.parametrize(
    ("shape", "min_ndim", "is_filtered"),
    [
        ((), 0, False),
        ((), 1, False),
        ((9,), 1, True),
        ((9,), 0, True),
        ((9,), 2, False),
        ((5, 9), 2, True),
        ((5, 9), 3, False),
        ((5, 3, 3), 3, True),
        ((0,), 1, False),
        ((0, 5), 2, False),
        ((5, 0), 2, False),
    ],
)
def test_which_tensors_are_filtered(shape, min_ndim, is_filtered):
    single = torch.nn.Parameter(torch.randn(shape))
    opt = bw.SMI(torch.optim.AdamW([single]), alpha=0.9, q=0.9, min_ndim=min_ndim)
    gradient = torch.randn(shape)
    found = filtered(gradient, opt)
    assert torch.equal(found, gradient) != is_filtered
    assert ("smi_history" in opt.state[single]) == is_filtered
    saved = opt.state_dict()
    opt.load_state_dict(saved)
    assert opt.state_dict()["state"].keys() == saved["state"].keys()


def test_the_user_hears_that_nothing_is_filtered():
    vector, matrix = torch.zeros(5), torch.zeros(5, 5)
    opt = bw.SMI(sgd([vector, matrix]), alpha=0.5)
    vector.grad = torch.ones(5)
    with pytest.warns(UserWarning, match="nothing: every .* dimensions than min_ndim=2") as caught:
        opt.step()
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matrix.grad = torch.ones(5, 5)
        opt.step()
        opt.zero_grad()
        opt.step()
        vector.grad = torch.ones(5)
        opt.param_groups[0]["smi"] = False
        opt.step()


def test_parameters_without_gradient_are_left_alone(param):
    frozen = torch.nn.Parameter(torch.ones(3, 3), requires_grad=False)
    unused = torch.nn.Parameter(torch.ones(3, 3))
    opt = bw.SMI(torch.optim.AdamW([frozen, param, unused], lr=0.1), alpha=0.5)
    filtered(torch.ones_like(param), opt, param)
    assert opt.state.keys() == {param}
    assert torch.equal(frozen, torch.ones(3, 3))
    assert torch.equal(unused, torch.ones(3, 3))


def test_a_gradient_that_comes_late_starts_its_own_history(param, gradients):
    other = torch.nn.Parameter(torch.zeros(4, 4))
    opt = bw.SMI(torch.optim.AdamW([other, param]), 20, alpha=bw.Linear(0, 1))
    for _ in range(5):
        other.grad = torch.randn(4, 4)
        opt.step()
    judge = Algorithm1(lambda t: (t + 5) / 20, 0.99, 0.25)
    for gradient in gradients:
        found = filtered(gradient, opt, param)
        torch.testing.assert_close(found, judge.filter(gradient))


def test_a_parameter_without_a_gradient_keeps_no_other_from_the_filter(param, gradients):
    without = torch.nn.Parameter(torch.zeros(4, 4))
    opt = bw.SMI(sgd([without, param]), alpha=0.5)
    torch.testing.assert_close(filtered(gradients[0], opt, param), judged(gradients[:1]))
    assert "smi_history" not in opt.state.get(without, {})


@pytest.mark.parametrize("foreach", [False, None])
def test_a_first_gradient_of_zeros_is_a_first_gradient(foreach, param, gradients):
    opt = bw.SMI(sgd([param]), alpha=0.5, beta=0.9, foreach=foreach)
    filtered(torch.zeros_like(param), opt)
    filtered(gradients[0], opt)
    right = 0.1 * torch.fft.rfft2(gradients[0]).abs()
    torch.testing.assert_close(opt.state[param]["smi_history"], right)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_one_row_shown_in_all_is_filtered_as_rows(n):
    row = torch.randn(1, 6, dtype=torch.float64)
    params = [torch.zeros(n, 6, dtype=torch.float64) for _ in range(2)]
    params[0].grad, params[1].grad = row.expand(n, 6), row.repeat(n, 1)
    bw.SMI(sgd(params), alpha=0.5, q=0.5).step()
    torch.testing.assert_close(params[0].grad, params[1].grad)


def test_a_sparse_gradient_is_refused_and_changes_nothing(param, gradients):
    embedding = torch.nn.Embedding(5, 3, sparse=True, dtype=torch.float64)
    opt = bw.SMI(sgd([param, embedding.weight]), alpha=0.5)
    embedding(torch.tensor([1, 2])).sum().backward()
    param.grad = gradients[0].clone()
    with pytest.raises(
        RuntimeError, match=r"^SMI cannot .*sparse=False.*smi=False; shape \(5, 3\)"
    ):
        opt.step()
    assert torch.equal(param.grad, gradients[0])
    assert not opt.state
    assert opt.param_groups[0]["smi_step"] == 0
    # The message's advice works.
    separate = sgd([{"params": [param]}, {"params": [embedding.weight], "smi": False}])
    bw.SMI(separate, alpha=0.5).step()
    torch.testing.assert_close(param.grad, judged(gradients[:1]))


# ---------------------------------------------------------------- state


@pytest.mark.parametrize(
    ("shape", "dtype", "kept"),
    [
        ((6, 8), torch.float32, (6, 5)),
        ((6, 7), torch.float32, (6, 4)),
        ((4, 3, 3, 3), torch.float32, (4, 14)),
        ((6, 8), torch.complex64, (6, 8)),
    ],
)
def test_the_history_is_of_the_half_spectrum(shape, dtype, kept):
    single = torch.nn.Parameter(torch.randn(shape, dtype=dtype))
    opt = bw.SMI(sgd([single]), alpha=0.5)
    gradient = torch.randn(shape, dtype=dtype)
    filtered(gradient, opt)
    history = opt.state[single]["smi_history"]
    assert history.shape == kept
    assert history.dtype == torch.float32
    matrix = gradient.reshape(spectrum.matrix_shape(gradient.shape))
    right = torch.fft.fft2(matrix).abs()[:, : kept[1]]
    torch.testing.assert_close(history, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("foreach", [False, None])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_refresh_every_holds_the_mask_and_not_the_history(k, foreach, param, gradients):
    opt = bw.SMI(sgd([param]), alpha=0.5, beta=0.5, q=0.5, refresh_every=k, foreach=foreach)
    judge = Algorithm1(lambda t: 0.5, 0.5, 0.5)
    held = []
    for t, gradient in enumerate(gradients):
        every_step = judge.filter(gradient)
        if t % k == 0:
            mask = torch.quantile(judge.H, 0.5) <= judge.H
        right = 0.5 * torch.fft.ifft2(torch.fft.fft2(gradient) * mask).real + 0.5 * gradient
        torch.testing.assert_close(filtered(gradient, opt), right)
        torch.testing.assert_close(opt.state[param]["smi_history"], judge.H[:, :4])
        held.append(not torch.allclose(right, every_step))
    assert any(held) == (k > 1)
    assert ("smi_mask" in opt.state[param]) == (k > 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_history_dtype(dtype, param, gradients):
    opt = bw.SMI(sgd([param]), alpha=0.5, beta=0.5, history_dtype=dtype)
    exact = bw.SMI(sgd([torch.nn.Parameter(param.detach().clone())]), alpha=0.5, beta=0.5)
    for gradient in gradients:
        filtered(gradient, opt)
        filtered(gradient, exact)
    found = opt.state[param]["smi_history"]
    (right,) = (state["smi_history"] for state in exact.state.values())
    assert found.dtype == dtype
    # With beta 1/2 the rounding errors of all steps sum to at most two.
    torch.testing.assert_close(found.double(), right, rtol=torch.finfo(dtype).eps, atol=1e-12)
    loaded = bw.SMI(sgd([param]), alpha=0.5)
    loaded.load_state_dict(opt.state_dict())
    assert loaded.state[param]["smi_history"].dtype == dtype
    assert loaded.param_groups[0]["smi_history_dtype"] == dtype


@pytest.mark.parametrize("foreach", [False, None])
@pytest.mark.parametrize("refresh_every", [1, 2])
def test_a_history_dtype_may_be_changed_while_training(foreach, refresh_every, param, gradients):
    opt = bw.SMI(sgd([param]), alpha=0.5, foreach=foreach, refresh_every=refresh_every)
    for dtype in (None, torch.bfloat16, torch.float32, torch.float16, None):
        opt.param_groups[0]["smi_history_dtype"] = dtype
        filtered(gradients[0], opt)
        history = opt.state[param]["smi_history"]
        assert history.dtype == (dtype or torch.float64)
        right = torch.fft.rfft2(gradients[0]).abs()
        torch.testing.assert_close(history.double(), right, rtol=2.0**-7, atol=0)
    # A value beyond float16 becomes its largest number, not infinity.
    filtered(gradients[0] * 1e9, opt)
    opt.param_groups[0]["smi_history_dtype"] = torch.float16
    filtered(gradients[0], opt)
    assert opt.state[param]["smi_history"].isfinite().all()


def test_a_loaded_history_has_the_dtype_of_the_group(param, gradients):
    """Even if the groups of a state_dict were replaced."""
    double = bw.SMI(sgd([param]), alpha=0.5)
    filtered(gradients[0], double)
    loaded = bw.SMI(sgd([param]), alpha=0.5, history_dtype=torch.float32)
    saved = loaded.state_dict()
    loaded.load_state_dict({**saved, "state": double.state_dict()["state"]})
    filtered(gradients[0], loaded)
    assert loaded.state[param]["smi_history"].dtype == torch.float32


def older(state):
    """The state of an older version, in which -1 marks a history that has not begun."""
    return {
        key: {
            name: value.nan_to_num(-1.0) if name == "smi_history" else value
            for name, value in entries.items()
        }
        for key, entries in state.items()
    }


@pytest.mark.parametrize("how", ["state_dict", "pickle"])
@pytest.mark.parametrize("refresh_every", [1, 3])
@pytest.mark.parametrize("foreach", [False, None])
def test_a_history_of_an_older_version_that_has_not_begun(
    how, refresh_every, foreach, param, gradients
):
    make = lambda: bw.SMI(  # noqa: E731
        sgd([param]), alpha=0.5, foreach=foreach, refresh_every=refresh_every
    )
    opt = make()
    filtered(torch.full_like(param, math.nan), opt)
    if how == "state_dict":
        saved = opt.state_dict()
        saved["state"] = older(saved["state"])
        assert (saved["state"][0]["smi_history"] == -1).all()
        opt = make()
        opt.load_state_dict(saved)
        assert (saved["state"][0]["smi_history"] == -1).all()  # the caller's own
    else:
        opt.state = collections.defaultdict(dict, older(opt.state))
        opt = pickle.loads(pickle.dumps(opt))
        (param,) = opt.param_groups[0]["params"]
    filtered(gradients[0], opt)
    right = torch.fft.rfft2(gradients[0]).abs()
    torch.testing.assert_close(opt.state[param]["smi_history"], right)


def test_a_pickle_from_before_fused_loads(param, gradients):
    opt = bw.SMI(sgd([param]), alpha=0.5)
    for group in (opt.defaults, *opt.param_groups):
        del group["smi_fused"]
    opt = pickle.loads(pickle.dumps(opt))
    torch.testing.assert_close(filtered(gradients[0], opt), judged(gradients[:1]))
    opt.add_param_group({"params": [torch.zeros(3)]})
    assert opt.param_groups[1]["smi_fused"] is None


def test_a_history_dtype_is_plain_data_in_a_state_dict(param):
    """torch.distributed.checkpoint needs plain data. Older states with a real dtype still load."""
    opt = bw.SMI(sgd([param]), alpha=0.5, history_dtype=torch.bfloat16)
    state = opt.state_dict()
    assert state["param_groups"][0]["smi_history_dtype"] == {"dtype": "bfloat16"}
    for saved in ({"dtype": "bfloat16"}, torch.bfloat16):
        state["param_groups"][0]["smi_history_dtype"] = saved
        loaded = bw.SMI(sgd([param]), alpha=0.5)
        loaded.load_state_dict(state)
        assert loaded.param_groups[0]["smi_history_dtype"] == torch.bfloat16
    for wrong in ("bf16", "load"):  # torch.load exists and is not a dtype
        state["param_groups"][0]["smi_history_dtype"] = {"dtype": wrong}
        with pytest.raises(ValueError, match=rf"history_dtype must be a torch.dtype .*'{wrong}'"):
            loaded.load_state_dict(state)


def test_a_base_s_own_setting_with_a_dtype_in_it_is_left_alone(param):
    own = {"dtype": "float32", "blocks": 8}
    opt = bw.SMI(torch.optim.SGD([{"params": [param], "quantized": own}], lr=0.1), alpha=0.5)
    opt.load_state_dict(opt.state_dict())
    assert opt.param_groups[0]["quantized"] == own


def test_a_magnitude_beyond_the_history_s_dtype_does_no_lasting_harm(param, gradients):
    """float16 ends at 65504. Infinity would become NaN in the next average and stay NaN."""
    opt = bw.SMI(sgd([param]), alpha=0.5, beta=0.5, history_dtype=torch.float16)
    filtered(gradients[0] * 1e6, opt)
    for gradient in gradients * 4:
        found = filtered(gradient, opt)
    assert opt.state[param]["smi_history"].isfinite().all()
    torch.testing.assert_close(found, judged(gradients * 4, beta=0.5))


def test_bfloat16_parameters_keep_a_float32_history_through_loading():
    single = torch.nn.Parameter(torch.zeros(4, 5, dtype=torch.bfloat16))
    opt = bw.SMI(torch.optim.AdamW([single]), alpha=0.5)
    filtered(torch.randn(4, 5).bfloat16(), opt)
    saved = copy.deepcopy(opt.state_dict())
    opt.load_state_dict(saved)
    assert opt.state[single]["smi_history"].dtype == torch.float32
    assert torch.equal(opt.state[single]["smi_history"], saved["state"][0]["smi_history"])


def test_gradients_are_changed_in_place(param, gradients):
    gradient = gradients[0].clone()
    param.grad = gradient
    bw.SMI(sgd([param]), alpha=0.5).step()
    assert param.grad is gradient
    torch.testing.assert_close(gradient, judged(gradients[:1]))


# ---------------------------------------------------------------- groups


def test_groups_have_settings_of_their_own(gradients):
    params = [torch.nn.Parameter(torch.zeros(6, 7, dtype=torch.float64)) for _ in range(4)]
    groups = [
        {"params": params[:1]},
        {"params": params[1:2], "smi_q": 0.75, "smi_beta": 0.5},
        {"params": params[2:3], "smi_alpha": bw.Linear(0.0, 1.0), "smi_total_steps": 12},
        {"params": params[3:], "smi": False},
    ]
    opt = bw.SMI(sgd(groups), alpha=0.5)
    for gradient in gradients:
        for param in params:
            param.grad = gradient.clone()
        opt.step()
    right = [
        judged(gradients),
        judged(gradients, q=0.75, beta=0.5),
        judged(gradients, alpha=lambda t: t / 12),
    ]
    for param, gradient in zip(params, right, strict=False):
        torch.testing.assert_close(param.grad, gradient)
    assert torch.equal(params[3].grad, gradients[-1])
    assert params[3] not in opt.state


def test_settings_may_be_changed_while_training(param, gradients):
    opt = bw.SMI(torch.optim.AdamW([{"params": [param], "smi": False}]), 12, alpha=0.5)
    (group,) = opt.param_groups
    assert torch.equal(filtered(gradients[0], opt), gradients[0])
    group["smi"] = True
    judge = Algorithm1(lambda t: 0.5, 0.99, 0.25)
    torch.testing.assert_close(filtered(gradients[1], opt), judge.filter(gradients[1]))
    group.update(smi_q=0.75, smi_alpha=bw.Linear(0.0, 1.0), smi_beta=0.5)
    judge.q, judge.alpha, judge.beta = 0.75, lambda t: (t + 1) / 12, 0.5
    torch.testing.assert_close(filtered(gradients[2], opt), judge.filter(gradients[2]))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("q", 1.5, "q must be at most 1"), ("alpha", 7, "alpha must be at most 1"),
     ("beta", 1, "beta must be below 1"), ("refresh_every", 0, "refresh_every must be at least 1")],
)  # fmt: skip
def test_a_setting_that_is_changed_is_checked_as_a_new_one(key, value, says, param, gradients):
    opt = bw.SMI(sgd([param]), alpha=0.5)
    opt.param_groups[0][f"smi_{key}"] = value
    param.grad = gradients[0].clone()
    with pytest.raises(ValueError, match=says):
        opt.step()
    assert torch.equal(param.grad, gradients[0])
    assert not opt.state


@pytest.mark.parametrize("foreach", [False, None])
def test_a_mask_that_was_kept_is_not_kept_for_later(foreach, param, gradients):
    opt = bw.SMI(sgd([param]), alpha=0.5, refresh_every=4, foreach=foreach)
    filtered(gradients[0], opt)
    for every in (1, 1000):
        opt.param_groups[0]["smi_refresh_every"] = every
        filtered(gradients[every % 7], opt)
    assert "smi_mask" in opt.state[param]
    history = opt.state[param]["smi_history"]
    mask = Grid.of(param).threshold(history, 0.25) <= history
    assert torch.equal(opt.state[param]["smi_mask"], mask)


def test_settings_that_do_not_change_are_checked_once(param, gradients, monkeypatch):
    opt = bw.SMI(sgd([param]), alpha=0.5)
    filtered(gradients[0], opt)
    monkeypatch.delattr("bandwise.optim._smi_settings.check_group")
    filtered(gradients[1], opt)
    for key, value in (("smi_q", 0.5), ("smi_alhpa", 0.5)):
        opt.param_groups[0][key] = value
        with pytest.raises(AttributeError, match="check_group"):
            opt.step()


def test_a_misspelt_setting_is_refused_while_training_too(param, gradients):
    opt = bw.SMI(sgd([param]), alpha=0.5)
    filtered(gradients[0], opt)
    opt.param_groups[0]["smi_alhpa"] = 0.5
    with pytest.raises(ValueError, match="smi_alhpa"):
        opt.step()


def test_its_methods_say_what_the_coming_step_does(param, gradients):
    vector = torch.nn.Parameter(torch.zeros(9))
    base = sgd([{"params": [param, vector]}, {"params": [torch.zeros(2, 2)], "smi": False}])
    opt = bw.SMI(base, 12, alpha=bw.Linear(0.0, 1.0), q=0.5, beta=0.5, refresh_every=2)
    group, other = opt.param_groups
    assert [opt.filters(group, p) for p in (param, vector)] == [True, False]
    assert not opt.filters(other, other["params"][0])
    grid = Grid.of(param)
    for t, gradient in enumerate(gradients[:4]):
        assert opt.alpha(group) == opt.alpha(group, ahead=1) == pytest.approx((t + 1) / 12)
        if t:
            assert opt.alpha(group, ahead=0) == pytest.approx(t / 12)
        told = opt.coming_mask(group, param, grid.magnitude(grid.transform(gradient)))
        filtered(gradient, opt, param)
        assert torch.equal(told, opt.state[param]["smi_mask"])


def test_who_steps_the_base_alone_is_told(param, gradients):
    base = sgd([param])
    opts = [bw.SMI(base, alpha=0.5)]
    opts += [copy.deepcopy(opts[0]), pickle.loads(pickle.dumps(opts[0]))]
    for opt in opts:
        (p,) = opt.param_groups[0]["params"]
        p.grad = gradients[0].clone()
        with pytest.warns(UserWarning, match="SGD.step was called without the SMI"):
            opt.base.step()
        assert torch.equal(p.grad, gradients[0])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            opt.step()
            opt.step(lambda: 0.0)
        with pytest.warns(UserWarning, match="SGD.step was called without the SMI"):
            opt.base.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del opt, opts
        base.step()  # of an SMI that is gone


def test_a_base_need_not_know_closures(param, gradients):
    class Descent(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

        @torch.no_grad()
        def step(self):
            for p in self.param_groups[0]["params"]:
                p -= p.grad

    opt = bw.SMI(Descent([param]), alpha=0.5)
    start = param.detach().clone()
    change = filtered(gradients[0], opt)
    assert torch.equal(param.detach(), start - change)
    assert repr(opt).startswith("SMI around Descent (")


def test_a_setting_without_its_prefix_is_told(param, gradients):
    with pytest.warns(UserWarning, match=r"q, min_ndim .* are called smi_q, smi_min_ndim there"):
        bw.SMI(sgd([{"params": [param], "min_ndim": 1, "q": 0.9}]), alpha=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt = bw.SMI(torch.optim.RMSprop([param], alpha=0.9), alpha=0.5)
        opt = bw.SMI(bw.NSF([param]), alpha=0.5)
    with pytest.warns(UserWarning, match=r"beta changes nothing: .* smi_beta there"):
        opt.add_param_group({"params": [torch.zeros(3)], "beta": 0.9})


@pytest.mark.parametrize("name", ["total_steps", "foreach", "fused"])
def test_every_setting_without_its_prefix_is_told(name, param):
    """The base does not know the name itself."""

    class Plain(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

    with pytest.warns(UserWarning, match=rf"^a parameter group's {name} changes .* smi_{name} th"):
        bw.SMI(Plain([{"params": [param], name: 9}]), alpha=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bw.SMI(Plain([{"params": [param], name: None}]), alpha=0.5)
        if name == "total_steps":
            bw.SMI(bw.NSF([{"params": [param], name: 9}]), alpha=0.5)


@pytest.mark.parametrize("add", ["to the base", "to the list"])
def test_a_group_that_was_not_added_to_it_is_refused(add, param, gradients):
    opt = bw.SMI(sgd([param]), alpha=0.5)
    group = {"params": [torch.zeros(3)]}
    if add == "to the base":
        opt.base.add_param_group(group)
    else:
        opt.param_groups.append(group)
    param.grad = gradients[0].clone()
    with pytest.raises(ValueError, match="add groups to the SMI, not to its base; it has params"):
        opt.step()
    assert torch.equal(param.grad, gradients[0])


def test_groups_and_state_can_be_given_to_it(param, gradients):
    """Accelerate replaces both in the optimizers that it wraps."""
    opt = bw.SMI(sgd([param], momentum=0.9), alpha=0.5)
    filtered(gradients[0], opt)
    groups = [{**opt.param_groups[0], "lr": 0.5}]
    state = copy.copy(opt.state)
    opt.param_groups, opt.state = groups, state
    assert opt.base.param_groups is groups
    assert opt.base.state is state
    assert opt.param_groups is groups
    assert opt.state is state


def test_what_is_captured_in_a_graph_would_stand_still(param, gradients, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_current_stream_capturing", lambda: True)
    for opt in (bw.SMI(sgd([param]), alpha=0.5), bw.NSF([param])):
        with pytest.raises(RuntimeError, match="step cannot be captured in a CUDA graph"):
            opt.step()


def test_an_added_group_goes_on_at_the_step_and_may_differ(param, gradients):
    opt = bw.SMI(sgd([param]), 20, alpha=bw.Linear(0.0, 1.0), q=0.5)
    for gradient in gradients[:5]:
        filtered(gradient, opt)
    added, plain, other = (torch.nn.Parameter(torch.zeros_like(param)) for _ in range(3))
    opt.add_param_group({"params": [added]})
    opt.add_param_group({"params": [plain], "smi": False})
    opt.add_param_group({"params": [other], "smi_q": 0.75})
    param.grad = None
    for gradient in gradients[:2]:
        for new in (added, plain, other):
            new.grad = gradient.clone()
        opt.step()
    alpha = lambda t: (t + 5) / 20  # noqa: E731
    torch.testing.assert_close(added.grad, judged(gradients[:2], q=0.5, alpha=alpha))
    torch.testing.assert_close(other.grad, judged(gradients[:2], q=0.75, alpha=alpha))
    assert torch.equal(plain.grad, gradients[1])


# ---------------------------------------------------------------- around the base


def test_a_step_that_fails_is_not_counted(param):
    opt = bw.SMI(torch.optim.AdamW([param]), 10)

    def closure():
        raise KeyError("no data")

    with pytest.raises(KeyError, match="no data"):
        opt.step(closure)
    assert opt.param_groups[0]["smi_step"] == 0
    assert not opt.state


class NoHostSync(TorchDispatchMode):
    """Raises if code reads a value from the device, which would make the CPU wait for a GPU."""

    READS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "_unique2", "masked_select")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.READS or (name == "_to_copy" and (kwargs or {}).get("device") is not None):
            raise AssertionError(f"{name} reads a value")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("foreach", [False, None])
def test_the_filter_never_waits_for_the_device(foreach, monkeypatch):
    monkeypatch.setattr("bandwise.optim._spectrum.at_hand", lambda tensor: False)
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in ((6, 7), (4, 3, 3), (9,))]
    params.append(torch.nn.Parameter(torch.randn(6, 8, dtype=torch.complex64)))
    opt = bw.SMI(
        sgd(params, foreach=False),
        10,
        min_ndim=1,
        refresh_every=2,
        history_dtype=torch.bfloat16,
        foreach=foreach,
    )
    with NoHostSync():
        for _ in range(4):
            for param in params:
                param.grad = torch.randn_like(param)
            opt.step()
        with pytest.raises(AssertionError, match="_local_scalar_dense"):
            bool(params[0].sum() > 0)
    assert all(param in opt.state for param in params)


@pytest.mark.parametrize("foreach", [False, None])
def test_a_gradient_that_shows_one_value_in_many_places_gets_memory_of_its_own(foreach):
    param = torch.nn.Parameter(torch.randn(6, 8))
    opt = bw.SMI(torch.optim.SGD([param], lr=0.1), alpha=0.5, foreach=foreach)
    (param.grad,) = torch.autograd.grad(param.sum(), [param])
    assert param.grad.stride() == (0, 0)
    opt.step()
    with torch.inference_mode():
        param.grad = torch.ones(6, 8)
    opt.step()


def test_a_misspelt_setting_of_a_group_is_refused():
    params = [{"params": [torch.zeros(3, 3)], "smi_alhpa": 0.5}]
    with pytest.raises(ValueError, match="smi_alhpa"):
        bw.SMI(torch.optim.SGD(params, lr=0.1), 10)


def test_a_state_dict_from_before_fused_loads():
    opt, fresh = (bw.SMI(torch.optim.SGD([torch.zeros(4, 4)], lr=0.1), alpha=0.5) for _ in range(2))
    opt.param_groups[0]["params"][0].grad = torch.ones(4, 4)
    opt.step()
    saved = opt.state_dict()
    for group in saved["param_groups"]:
        del group["smi_fused"]
    fresh.load_state_dict(saved)
    assert fresh.state_dict()["param_groups"] == opt.state_dict()["param_groups"]


def test_a_complex_parameter_s_history_is_loaded():
    def filtered():
        param = torch.zeros(6, 8, dtype=torch.complex64)
        opt = bw.SMI(torch.optim.SGD([param], lr=1.0), alpha=0.5)
        return param, opt

    (before, opt), (param, resumed) = filtered(), filtered()
    before.grad = torch.randn(6, 8, dtype=torch.complex64)
    opt.step()
    resumed.load_state_dict(opt.state_dict())
    history = resumed.state[param]["smi_history"]
    assert torch.equal(history, opt.state[before]["smi_history"])
    assert history.shape == (6, 8)
