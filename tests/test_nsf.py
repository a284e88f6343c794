"""NSF against AdamW, against momentum SGD, and against its formulas written out again."""

import copy
import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode

import bandwise as bw
from bandwise.optim import nsf

SCALES = ["adam", "sgd", "none"]


def relative(found, right):
    return ((found - right).norm() / right.norm()).item()


def gradients(shape, count, dtype=torch.float32, seed=0):
    """Of magnitudes that differ widely by coordinate, with a trend and noise."""
    generator = torch.Generator().manual_seed(seed)
    size = 10 ** torch.empty(shape, dtype=torch.float64).uniform_(-4, 1, generator=generator)
    trend = torch.randn(shape, dtype=torch.float64, generator=generator)
    noise = torch.randn((count, *shape), dtype=torch.float64, generator=generator)
    return [(size * (trend + x)).to(dtype) for x in noise]


def run(opt, param, grads):
    for grad in grads:
        param.grad = grad.clone()
        opt.step()
    return param.detach()


def formulas(theta, grads, p, scale, lr, betas, eps, weight_decay, maximize=False, decoupled=True):
    """The equations, a line each, in the precision of the arguments; p a function of t."""
    beta1, beta2 = betas
    m = v = torch.zeros_like(theta)
    for t, grad in enumerate(grads, start=1):
        g = -grad if maximize else grad
        if not decoupled:
            g = g + weight_decay * theta
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        if scale == "none":
            u = m_hat / (v_hat ** p(t) + eps)
        else:
            d = v_hat.sqrt() + eps
            u = m_hat * d ** (-2 * p(t))
            wanted = m_hat / d if scale == "adam" else m_hat
            if u.norm() > 0:
                u = u * wanted.norm() / u.norm()
        theta = theta - lr * (weight_decay * theta if decoupled else 0) - lr * u
    return theta


@pytest.mark.parametrize("scale", ["adam", "none"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"betas": (0.8, 0.95), "weight_decay": 0.1},
        {"eps": 1e-3, "weight_decay": 0.0},
        {"betas": (0.0, 0.9)},
        {"maximize": True},
    ],
    ids=str,
)
def test_one_half_is_adamw(scale, settings):
    start = torch.randn(40, 30)
    params = [start.clone().requires_grad_() for _ in range(2)]
    ours = bw.NSF([params[0]], lr=1e-2, p=0.5, scale=scale, **settings)
    theirs = torch.optim.AdamW([params[1]], lr=1e-2, **settings)
    grads = gradients((40, 30), 100)
    found, right = run(ours, params[0], grads), run(theirs, params[1], grads)
    assert relative(right, start) > 0.1
    assert relative(found, right) < 1e-6
    for name in ("step", "exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(ours.state[params[0]][name], theirs.state[params[1]][name])


@pytest.mark.parametrize("scale", ["adam", "none"])
def test_one_half_trains_as_adamw(scale):
    x, y = torch.randn(64, 6, dtype=torch.float64), torch.randn(64, 2, dtype=torch.float64)
    layers = torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2)
    ours = torch.nn.Sequential(*layers).double()
    theirs = copy.deepcopy(ours)
    for model, opt in (
        (ours, bw.NSF(ours.parameters(), lr=1e-2, p=0.5, scale=scale)),
        (theirs, torch.optim.AdamW(theirs.parameters(), lr=1e-2)),
    ):
        for _ in range(100):
            opt.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            opt.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert relative(a, b) < 1e-10


@pytest.mark.parametrize("other", [0.49, 0.51])
def test_a_neighbouring_exponent_is_told_apart(other):
    params = [torch.ones(40, 30, requires_grad=True) for _ in range(2)]
    grads = gradients((40, 30), 20)
    found = run(bw.NSF([params[0]], p=other), params[0], grads)
    right = run(torch.optim.AdamW([params[1]]), params[1], grads)
    assert relative(found, right) > 1e-5


def test_zero_is_bias_corrected_momentum_sgd():
    start = torch.randn(20, 10, dtype=torch.float64)
    lr, beta, decay = 0.1, 0.9, 0.05
    grads = gradients((20, 10), 30, torch.float64)
    theta, m = start, torch.zeros_like(start)
    for t, g in enumerate(grads, start=1):
        m = beta * m + (1 - beta) * g
        theta = theta - lr * decay * theta - lr * m / (1 - beta**t)

    param = start.clone().requires_grad_()
    opt = bw.NSF([param], lr=lr, betas=(beta, 0.999), weight_decay=decay, p=0, scale="sgd")
    assert relative(run(opt, param, grads), theta) < 1e-13


@given(
    st.lists(st.integers(1, 5), max_size=3).map(tuple),
    st.floats(-1, 1.5),
    st.sampled_from(SCALES),
    st.integers(1, 8),
    st.sampled_from([(0.9, 0.999), (0.0, 0.5), (0.95, 0.0)]),
    st.sampled_from([(torch.float64, 1e-10), (torch.float32, 1e-4)]),
    st.booleans(),
    st.sampled_from([{}, {"foreach": False}, {"fused": True}]),
    st.integers(0, 2**31),
)
@example((), 0.5, "adam", 3, (0.9, 0.999), (torch.float64, 1e-10), True, {}, 0)
@example((5, 4), 0.0, "none", 3, (0.9, 0.999), (torch.float64, 1e-10), False, {"fused": True}, 0)
def test_formulas(shape, p, scale, steps, betas, precision, decoupled, path, seed):
    dtype, tolerance = precision
    start = torch.zeros(shape, dtype=dtype)
    grads = gradients(shape, steps, dtype, seed)
    settings = {"lr": 1.0, "betas": betas, "eps": 1e-8, "weight_decay": 0.1}
    right = formulas(
        start.double(), [g.double() for g in grads], lambda t: p, scale, **settings,
        decoupled=decoupled,
    )  # fmt: skip
    param = start.clone().requires_grad_()
    settings |= {"decoupled_weight_decay": decoupled, **path}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bandwise.optim._paths.nsf_fused._CPU_NUMEL", 2)
        found = run(bw.NSF([param], p=p, scale=scale, **settings), param, grads)
    assert relative(found.double(), right) < tolerance


@pytest.mark.parametrize("settings", [{}, {"maximize": True}, {"weight_decay": 0.0}], ids=str)
@pytest.mark.parametrize("path", [{}, {"foreach": False}, {"fused": True}], ids=str)
def test_one_half_with_a_coupled_decay_is_adam(settings, path):
    start = torch.randn(100, 90, dtype=torch.float64)
    settings = {"lr": 1e-2, "weight_decay": 0.1, **settings}
    params = [start.clone().requires_grad_() for _ in range(2)]
    ours = bw.NSF([params[0]], p=0.5, decoupled_weight_decay=False, **settings, **path)
    theirs = torch.optim.Adam([params[1]], **settings)
    grads = gradients((100, 90), 20, torch.float64)
    assert relative(run(ours, params[0], grads), run(theirs, params[1], grads)) < 1e-12


def test_the_authors_preset_at_0_is_torch_s_sgd_once_momentum_has_settled():
    """A rate of 1 where momentum is an average is a rate of 0.1 where it is a sum."""
    params = [torch.ones(6, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    ours = bw.NSF.preset("authors", [params[0]], lr=0.01, p=0.0, eps=0.0)
    theirs = torch.optim.SGD([params[1]], lr=0.001, momentum=0.9, weight_decay=5e-4)
    for grad in gradients((6, 5), 300, torch.float64):
        before = [param.detach().clone() for param in params]
        for opt, param in ((ours, params[0]), (theirs, params[1])):
            param.grad = grad.clone()
            opt.step()
    moved = [param.detach() - old for param, old in zip(params, before, strict=True)]
    # The parameters differ since the first steps, and coupled decay sees them.
    assert relative(moved[0], moved[1]) < 1e-3


def test_presets():
    params = [torch.ones(3)]
    default = bw.NSF(params).defaults
    assert bw.NSF.preset("default", params).defaults == default
    cycle = bw.NSF.preset("adam-cycle", params, lr=3e-4).defaults
    assert cycle == {**default, "lr": 3e-4, "p": bw.Cyclic(0.5, -0.25, period=200)}
    authors = bw.NSF.preset("authors", params, p=0.1, scale="none").defaults
    assert authors == {
        **default, "lr": 1.0, "weight_decay": 5e-4, "p": 0.1, "scale": "none",
        "decoupled_weight_decay": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("author", {}, "preset must be one of authors, adam-cycle, default, got 'author'"),
        ("authors", {"scale": "adam"}, "preset 'authors' has scale='none', got 'adam'"),
        ("default", {"p": 0.5}, "preset 'default' has p=0.7, got 0.5"),
        ("adam-cycle", {"decoupled_weight_decay": False}, "decoupled_weight_decay=True, got False"),
    ],
)
def test_presets_refuse_what_contradicts_them(name, settings, message):
    with pytest.raises(ValueError, match=message):
        bw.NSF.preset(name, [torch.ones(3)], **settings)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "p", [bw.Cyclic(0.5, -0.25, period=6), bw.Cyclic(0.9, 0.1, 4, "square"), bw.Linear(1.0, -1.0)]
)
def test_p_follows_its_schedule_from_step_1(scale, p):
    grads = gradients((6, 5), 20, torch.float64)
    settings = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.0}
    start = torch.randn(6, 5, dtype=torch.float64)
    right = formulas(start, grads, lambda t: p(t, 15), scale, **settings)
    param = start.clone().requires_grad_()
    opt = bw.NSF([param], p=p, scale=scale, total_steps=15, **settings)
    assert relative(run(opt, param, grads), right) < 1e-10
    assert opt.param_groups[0]["step"] == 20


def test_p_may_differ_by_group_and_be_changed():
    grads = gradients((6, 5), 10, torch.float64)
    params = [torch.zeros(6, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    opt = bw.NSF([{"params": params[:1], "p": 0.0}, {"params": params[1:]}], lr=0.1, p=1.0)
    for t, grad in enumerate(grads, start=1):
        if t == 6:
            opt.param_groups[1]["p"] = -1.0
        params[0].grad = grad.clone()
        params[1].grad = grad.clone()
        opt.step()
    settings = {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
    start = torch.zeros(6, 5, dtype=torch.float64)
    for param, p in zip(params, (lambda t: 0.0, lambda t: 1.0 if t < 6 else -1.0), strict=True):
        right = formulas(start, grads, p, "adam", **settings)
        assert relative(param.detach(), right) < 1e-10


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("p", [-2.0, -0.5, 0.0, 0.5, 1.5, 3.0])
@pytest.mark.parametrize("eps", [1e-8, 0.0])
def test_a_tensor_without_update_stays_where_it_is(scale, p, eps):
    param = torch.randn(4, 3, requires_grad=True)
    start = param.detach().clone()
    opt = bw.NSF([param], p=p, scale=scale, eps=eps, weight_decay=0.0)
    assert torch.equal(run(opt, param, [torch.zeros(4, 3)] * 3), start)
    # ... and moves with the first gradient.
    assert not torch.equal(run(opt, param, [torch.ones(4, 3)]), start)
    assert param.isfinite().all()


@pytest.mark.parametrize("scale", SCALES)
def test_weight_decay_alone(scale):
    param = torch.ones(3, requires_grad=True)
    opt = bw.NSF([param], lr=0.1, weight_decay=0.5, scale=scale)
    run(opt, param, [torch.zeros(3)])
    torch.testing.assert_close(param.detach(), torch.full((3,), 0.95))


@pytest.mark.parametrize("scale", ["adam", "sgd"])
@pytest.mark.parametrize("p", [-3.0, -1.0, 0.0, 0.7, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("eps", [1e-8, 1e-15])
@pytest.mark.parametrize("size", [1e-12, 1.0, 1e6])
def test_no_exponent_leaves_float32_s_range(scale, p, eps, size):
    """Powers of d do: 1e-15 to the -3, 1e6 to the -12. The step's length holds all the same."""
    grad = torch.randn(64) * size
    grad[:8] = 0
    grad[8:16] *= 1e-9
    param = torch.zeros(64, requires_grad=True)
    run(bw.NSF([param], lr=1.0, p=p, eps=eps, scale=scale, weight_decay=0.0), param, [grad])
    assert (param.detach()[:8] == 0).all()
    d = grad.double().abs() + eps
    wanted = (grad / d if scale == "adam" else grad.double()).norm().item()
    assert param.detach().double().norm().item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("p", [-1.0, 0.0, 0.5, 1.0])
def test_a_gradient_of_nan_is_not_hidden(p):
    param = torch.ones(4, requires_grad=True)
    run(bw.NSF([param], p=p), param, [torch.tensor([1.0, math.nan, 0.0, 1.0])])
    assert param[1].isnan()


@pytest.mark.parametrize("scale", SCALES)
def test_complex_parameters_are_two_reals(scale):
    start = torch.randn(5, 4, dtype=torch.complex64)
    param = start.clone().requires_grad_()
    twin = torch.view_as_real(start).clone().requires_grad_()
    grads = [torch.randn(5, 4, dtype=torch.complex64) for _ in range(10)]
    settings = {"lr": 0.1, "p": bw.Cyclic(0.9, -0.5, 5), "scale": scale}
    found = run(bw.NSF([param], **settings), param, grads)
    right = run(bw.NSF([twin], **settings), twin, [torch.view_as_real(g) for g in grads])
    assert torch.equal(torch.view_as_real(found), right)
    assert not torch.equal(found, start)


@pytest.mark.parametrize("p", [0.5, bw.Cyclic(0.5, -0.25, 4)])
def test_missing_gradients_delay_the_moments_and_not_p(p):
    """A parameter's moments count its own gradients, p the optimizer's steps."""
    grads = gradients((6, 5), 8, torch.float64)
    param = torch.zeros(6, 5, dtype=torch.float64, requires_grad=True)
    opt = bw.NSF([param], lr=0.1, p=p)
    seen = []
    for t, grad in enumerate(grads, start=1):
        param.grad = None if t in (1, 4, 5) else grad.clone()
        seen += [] if param.grad is None else [t]
        opt.step()
    exponents = [opt.param_groups[0]["p"]] * 8
    if isinstance(p, bw.Schedule):
        exponents = [p(t) for t in seen]
    right = formulas(
        torch.zeros(6, 5, dtype=torch.float64),
        [grads[t - 1] for t in seen],
        lambda t: exponents[t - 1],
        "adam",
        lr=0.1,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=0.01,
    )
    assert relative(param.detach(), right) < 1e-10
    assert opt.state[param]["step"] == 5


@pytest.mark.parametrize("lr", [torch.tensor(0.1), torch.tensor([0.1])], ids=["0-D", "1-D"])
@pytest.mark.parametrize("shape", [(), (3,), (4, 3), (0, 5)])
def test_learning_rate_as_a_tensor(lr, shape):
    grads = gradients(shape, 5)
    params = [torch.ones(shape, requires_grad=True) for _ in range(2)]
    found = run(bw.NSF([params[0]], lr=lr), params[0], grads)
    assert torch.equal(found, run(bw.NSF([params[1]], lr=lr.item()), params[1], grads))


def test_a_setting_that_is_changed_is_checked_as_a_new_one():
    param = torch.ones(3, requires_grad=True)
    opt = bw.NSF([param], lr=0.1)
    opt.param_groups[0]["p"] = 7
    param.grad = torch.ones(3)
    with pytest.raises(ValueError, match="p must be at most 3, got 7"):
        opt.step()
    assert torch.equal(param, torch.ones(3))
    assert not opt.state


def test_the_step_count_stays_with_the_processor(monkeypatch):
    """Read at every step, it must not be waited for; torch sends it to the parameter's device where
    a group is fused."""
    monkeypatch.setattr("bandwise.optim.nsf.deepcopy", lambda state: state)  # cannot copy these
    with FakeTensorMode():  # a GPU that need not be there
        param = torch.ones(3, device="cuda", requires_grad=True)
        opt = bw.NSF([param], fused=True)
        moments = {name: torch.zeros(3) for name in ("exp_avg", "exp_avg_sq")}
        saved = opt.state_dict()
        saved["state"] = {0: {"step": torch.tensor(4.0), **moments}}
        opt.load_state_dict(saved)
        assert opt.state[param]["exp_avg"].device.type == "cuda"
        assert opt.state[param]["step"].device.type == "cpu"
    with torch.device("meta"):
        fresh = bw.NSF([torch.ones(3, requires_grad=True)])._state(param)
    assert fresh["step"].device.type == "cpu"


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_memory_does_not_grow_with_the_number_of_large_tensors(device):
    side = 512 if device == "cpu" else 4096
    params = [torch.empty(side, side, device=device) for _ in range(5)]
    opt = bw.NSF(params)
    for param in params:
        param.grad = param.clone()
    settings = opt._settings(opt.param_groups[0])
    batches = nsf._batches(opt._entries(params), settings, settings.update(1))
    assert [len(batch) for _, batch in batches] == ([1] * 5 if side == 512 else [2, 2, 1])


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_stored_and_not_computed_in(scale, dtype):
    """One step equals the float32 one on the same numbers, rounded once."""
    grad = gradients((16, 8), 1)[0].to(dtype)
    start = torch.randn(16, 8).to(dtype)
    param = start.clone().requires_grad_()
    settings = {"lr": 0.1, "p": 0.7, "scale": scale, "betas": (0.0, 0.0)}
    found = run(bw.NSF([param], **settings), param, [grad])
    assert found.dtype == dtype
    twin = start.float().requires_grad_()
    # With betas of 0 the moments are g and g^2; they are rounded where they are stored.
    moments = grad.float(), grad.float().square()
    d = moments[1].sqrt() + 1e-8
    u = moments[0] / (moments[1] ** 0.7 + 1e-8) if scale == "none" else moments[0] * d**-1.4
    wanted = {"adam": moments[0] / d, "sgd": moments[0], "none": u}[scale]
    right = twin.detach() * (1 - 0.1 * 0.01) - 0.1 * u * wanted.norm() / u.norm()
    torch.testing.assert_close(found, right.to(dtype), rtol=torch.finfo(dtype).eps, atol=0)


def test_not_contiguous():
    start = torch.randn(6, 8)
    grads = gradients((6, 8), 5)
    param = start.mT.contiguous().mT.requires_grad_()
    assert not param.is_contiguous()
    twin = start.clone().requires_grad_()
    torch.testing.assert_close(
        run(bw.NSF([param]), param, grads), run(bw.NSF([twin]), twin, grads), rtol=1e-6, atol=0
    )


def test_a_sparse_gradient_is_refused_and_changes_nothing():
    embedding = torch.nn.Embedding(5, 3, sparse=True)
    dense = torch.ones(2, requires_grad=True)
    opt = bw.NSF([dense, embedding.weight])
    before = embedding.weight.detach().clone()
    (embedding(torch.tensor([1, 2])).sum() + dense.sum()).backward()
    with pytest.raises(RuntimeError, match=r"sparse=False in Embedding\); shape \(5, 3\)"):
        opt.step()
    assert torch.equal(embedding.weight, before)
    assert torch.equal(dense, torch.ones(2))
    assert not opt.state
    assert opt.param_groups[0]["step"] == 0


def test_defaults_are_adamw_s_and_p_is_0_7():
    defaults = bw.NSF([torch.ones(2, requires_grad=True)]).param_groups[0]
    assert (defaults.pop("p"), defaults.pop("scale")) == (0.7, "adam")
    adamw = torch.optim.AdamW([torch.ones(2, requires_grad=True)]).param_groups[0]
    for name in ("lr", "betas", "eps", "weight_decay", "maximize", "foreach", "fused"):
        assert defaults[name] == adamw[name]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"lr": -1}, ValueError, "lr must be at least 0, got -1"),
        ({"lr": "1"}, TypeError, "lr must be a number, got '1'"),
        ({"lr": torch.ones(2)}, ValueError, r"lr must be .* a tensor of one element, got tensor"),
        ({"betas": 0.9}, TypeError, "betas must be a pair of numbers, got 0.9"),
        ({"betas": (0.9,)}, TypeError, r"betas must be a pair of numbers, got \(0\.9,\)"),
        ({"betas": (1.0, 0.9)}, ValueError, r"betas\[0\] must be below 1, got 1.0"),
        ({"betas": (0.9, -0.1)}, ValueError, r"betas\[1\] must be at least 0, got -0.1"),
        ({"betas": (-0.1, 0.9)}, ValueError, r"betas\[0\] must be at least 0, got -0.1"),
        ({"betas": (0.9, 1.0)}, ValueError, r"betas\[1\] must be below 1, got 1.0"),
        ({"eps": -1e-8}, ValueError, "eps must be at least 0, got -1e-08"),
        ({"weight_decay": math.nan}, ValueError, "weight_decay must be finite, got nan"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay must be at least 0, got -0.1"),
        (
            {"p": "half"},
            TypeError,
            r"p must be a number or a schedule such as Cosine\(0.1, 0.5\), got 'half'",
        ),
        ({"p": math.inf}, ValueError, "p must be finite, got inf"),
        ({"p": -3.1}, ValueError, "p must be at least -3, got -3.1"),
        ({"p": 3.1}, ValueError, "p must be at most 3, got 3.1"),
        ({"p": bw.Linear(0.5, 0)}, ValueError, "Linear.* needs total_steps"),
        ({"scale": "lamb"}, ValueError, "scale must be one of adam, sgd, none, got 'lamb'"),
        ({"foreach": 1}, TypeError, "foreach must be True or False, got 1"),
        ({"fused": 1}, TypeError, "fused must be True or False, got 1"),
        (
            {"foreach": True, "fused": True},
            ValueError,
            "foreach must be None where fused is True, got True",
        ),
        ({"maximize": 1}, TypeError, "maximize must be True or False, got 1"),
        ({"p": bw.Linear(0.5, 0), "total_steps": 0}, ValueError, "total_steps must be at least 1"),
    ],
    ids=str,
)
def test_wrong_arguments(settings, error, message):
    param = torch.ones(2, requires_grad=True)
    with pytest.raises(error, match=message):
        bw.NSF([param], **settings)
    opt = bw.NSF([param])
    with pytest.raises(error, match=message):
        opt.add_param_group({"params": [torch.ones(2, requires_grad=True)], **settings})
    assert len(opt.param_groups) == 1


def test_a_state_dict_from_before_fused_loads():
    def stepped():
        param = torch.ones(3)
        opt = bw.NSF([param], p=0.7)
        param.grad = torch.tensor([1.0, 2.0, 3.0])
        opt.step()
        return param, opt

    (before, opt), (param, resumed) = stepped(), stepped()
    saved = opt.state_dict()
    del saved["param_groups"][0]["fused"]
    resumed.load_state_dict(saved)
    assert resumed.param_groups[0]["fused"] is None
    opt.step()
    resumed.step()
    assert torch.equal(param, before)


def test_a_state_of_another_optimizer_is_refused_by_name():
    param = torch.ones(3)
    opt = bw.NSF([param])
    saved = opt.state_dict()
    saved["state"][0] = {"step": torch.tensor(1.0), "square_avg": torch.ones(3)}
    with pytest.raises(ValueError, match=r"parameter 0 is not an NSF's.*has step, square_avg"):
        opt.load_state_dict(saved)
    assert not opt.state


def moved(*optimizers, steps=2):
    """Where the first parameter of each optimizer is after steps with the same gradients."""
    for step in range(steps):
        for opt in optimizers:
            for param in opt.param_groups[0]["params"]:
                param.grad = torch.full_like(param, 0.5 + step)
            opt.step()
    return [opt.param_groups[0]["params"][0] for opt in optimizers]


def aged(opt):
    """The optimizer as a pickle of a version that had no ``fused`` and plain numbers of steps."""
    saved = copy.deepcopy(opt).__getstate__()
    for settings in (saved["defaults"], *saved["param_groups"]):
        del settings["fused"]
    for state in saved["state"].values():
        state["step"] = int(state["step"])
    old = bw.NSF.__new__(bw.NSF)
    old.__setstate__(saved)
    return old


def test_a_pickle_from_before_fused_steps_and_takes_groups():
    opt = bw.NSF([torch.ones(3)], p=bw.Cyclic(0.9, -0.5, 3))
    moved(opt)
    old = aged(opt)
    assert old.param_groups[0]["fused"] is None
    assert torch.equal(*moved(opt, old))
    old.add_param_group({"params": [torch.ones(2)]})
    assert old.param_groups[1]["fused"] is None


@pytest.mark.parametrize("number", [int, float])
def test_steps_saved_as_plain_numbers_load(number):
    opt, resumed = (bw.NSF([torch.ones(3)]) for _ in range(2))
    moved(opt)
    resumed.param_groups[0]["params"][0].copy_(opt.param_groups[0]["params"][0])
    saved = copy.deepcopy(opt.state_dict())
    saved["state"][0]["step"] = number(saved["state"][0]["step"])
    resumed.load_state_dict(saved)
    assert torch.equal(*moved(opt, resumed))


def test_a_post_load_hook_may_leave_anything_in_the_state():
    """NSF makes its moments where it finds none, and touches nothing else."""
    opt, fresh = (bw.NSF([torch.ones(3)]) for _ in range(2))
    (param,) = opt.param_groups[0]["params"]
    opt.register_load_state_dict_post_hook(
        lambda opt: opt.state.update({param: {"mine": 1}, "note": "mine too"})
    )
    opt.load_state_dict(opt.state_dict())
    assert torch.equal(*moved(opt, fresh))
    assert opt.state[param]["mine"] == 1
    assert opt.state["note"] == "mine too"


@pytest.mark.parametrize(
    "value", [{"schedule": "Linear", "start": 0, "end": 1}, {"dtype": "float32"}]
)
def test_what_others_keep_in_a_group_is_loaded_as_it_is(value):
    opt = bw.NSF([{"params": [torch.ones(3)], "theirs": value}], p=bw.Cyclic(0.9, -0.5, 3))
    opt.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert opt.param_groups[0]["theirs"] == value
    assert opt.param_groups[0]["p"] == bw.Cyclic(0.9, -0.5, 3)


@pytest.mark.parametrize(
    "value", [{"schedule": "warm-up"}, {"schedule": "Linear", "start": 0}, {"dtype": "float32"}]
)
def test_smi_loads_its_own_state_dict_whatever_its_base_keeps(value):
    def made():
        base = torch.optim.SGD([{"params": [torch.ones(4, 6)], "theirs": value}], lr=0.1)
        return bw.SMI(base, 10, history_dtype=torch.bfloat16)

    opt, resumed = made(), made()
    moved(opt)
    resumed.param_groups[0]["params"][0].copy_(opt.param_groups[0]["params"][0])
    resumed.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert resumed.param_groups[0]["theirs"] == value
    assert resumed.param_groups[0]["smi_alpha"] == bw.Cosine(0.1, 0.5)
    assert resumed.param_groups[0]["smi_history_dtype"] == torch.bfloat16
    assert torch.equal(*moved(opt, resumed))


def test_settings_are_checked_when_they_change_and_only_then(monkeypatch):
    checks = []
    check = nsf.Settings.check
    monkeypatch.setattr(nsf.Settings, "check", lambda self: checks.append(self) or check(self))
    opt = bw.NSF([torch.ones(3)], lr=torch.tensor(0.1), betas=[0.9, 0.99])
    (group,) = opt.param_groups
    checks.clear()
    moved(opt, steps=3)
    assert len(checks) == 1
    group["lr"].fill_(0.2)  # in place, as schedulers change it
    group["betas"][0] = 0.8
    moved(opt, steps=2)
    assert [settings.lr for settings in checks] == [pytest.approx(0.1), pytest.approx(0.2)]
    group["betas"][1] = 1.0
    with pytest.raises(ValueError, match=r"betas\[1\] must be below 1"):
        moved(opt)


@pytest.mark.parametrize("p", [0.5, bw.Cyclic(0.9, -0.5, 4), bw.Linear(1.0, 0.0)])
def test_the_exponent_of_steps_ahead(p):
    opt = bw.NSF([torch.ones(3)], p=p, total_steps=8)
    moved(opt, steps=3)
    (group,) = opt.param_groups
    right = [p if isinstance(p, float) else p(step, 8) for step in (3, 4, 6)]
    assert [opt.exponent(group, 0), opt.exponent(group), opt.exponent(group, ahead=3)] == right
