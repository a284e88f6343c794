"""Every setting of the optimizers against what torch promises of its own.

``test_optimizer.py`` covers schedulers, GradScaler, copies and checkpoints; here are the parameters
and gradients that an optimizer may meet. Where bandwise departs from torch the test says why.
"""

import copy
import itertools
import pickle

import pytest
import torch
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

import bandwise as bw
from torch_versions import needs_groups_that_are_added


class Lion(torch.optim.Optimizer):
    """A user's own optimizer, as short as they come: steps of one length, by sign."""

    def __init__(self, params, lr=1e-2, beta=0.9, maximize=False):
        super().__init__(params, {"lr": lr, "beta": beta, "maximize": maximize})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                if not state:
                    state.update(step=torch.tensor(0.0), m=torch.zeros_like(param))
                state["step"] += 1
                grad = -param.grad if group["maximize"] else param.grad
                state["m"].lerp_(grad, 1 - group["beta"])
                param.sub_(group["lr"] * state["m"].sgn())
        return loss


BASES = {
    "SGD": lambda params, **kw: torch.optim.SGD(params, **{"lr": 1e-2, "momentum": 0.9, **kw}),
    "Adam": lambda params, **kw: torch.optim.Adam(params, **{"lr": 1e-2, **kw}),
    "AdamW": lambda params, **kw: torch.optim.AdamW(params, **{"lr": 1e-2, **kw}),
    "RMSprop": lambda params, **kw: torch.optim.RMSprop(params, **{"lr": 1e-2, **kw}),
    "Adagrad": lambda params, **kw: torch.optim.Adagrad(params, **{"lr": 1e-2, **kw}),
    "Lion": Lion,
    "NSF": lambda params, **kw: bw.NSF(params, **{"lr": 1e-2, "p": 0.7, **kw}),
}
EXPONENTS = [0.7, 0.5, 0.0, -0.25]
SCALES = ["adam", "sgd", "none"]
PATHS = {"loop": {"foreach": False}, "foreach": {}, "fused": {"fused": True}}


def smi(base, **own):
    def made(params, **settings):
        return bw.SMI(BASES[base](params, **settings), 20, alpha=0.5, min_ndim=1, **own)

    return made


def nsf(p, scale, path="foreach"):
    def made(params, **settings):
        return bw.NSF(params, **{"lr": 1e-2, "p": p, "scale": scale, **PATHS[path], **settings})

    return made


SMIS = {f"SMI-{base}": smi(base) for base in BASES}
NSFS = {
    f"NSF-{p}-{scale}-{path}": nsf(p, scale, path)
    for p, scale, path in itertools.product(EXPONENTS, SCALES, PATHS)
}
NSFS["NSF-authors"] = lambda params, **settings: bw.NSF.preset("authors", params, **settings)
SETTINGS = {**SMIS, **NSFS}


@pytest.fixture(autouse=True)
def _kernels_for_tensors_of_any_size(monkeypatch):
    monkeypatch.setattr("bandwise.optim._paths.nsf_fused._CPU_NUMEL", 2)


@pytest.fixture(params=SETTINGS)
def make(request):
    return SETTINGS[request.param]


def tensors(*shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, dtype=dtype, generator=generator) for shape in shapes]


SHAPES = ((4, 6), (5,), (3, 2, 2))


def run(opt, params, steps, gradients=None):
    """Steps with the same random gradients whoever runs; ``gradients`` lays them out."""
    for t in steps:
        for i, param in enumerate(params):
            (grad,) = tensors(param.shape, dtype=param.dtype, seed=100 * t + i)
            param.grad = gradients(grad) if gradients else grad
        opt.step()
    return params


def close(found, right, dtype=torch.float32):
    """Equal but for rounding: a few last digits of the largest value."""
    slack = 100 * torch.finfo(dtype).eps
    for a, b in zip(found, right, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=slack, atol=slack * b.abs().max().item())


# ---------------------------------------------------------------- which tensors


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64]


def test_tensors_of_all_dtypes_side_by_side_are_as_each_alone(make):
    """In one group and in groups of their own."""
    starts = [x for dtype in DTYPES for x in tensors((4, 6), (5,), dtype=dtype)]

    def trained(groups):
        params = [start.clone() for start in starts]
        opts = [make([params[i] for i in some]) for some in groups]
        for t in range(3):
            for i, param in enumerate(params):
                (param.grad,) = tensors(param.shape, dtype=param.dtype, seed=100 * t + i)
            for opt in opts:
                opt.step()
        return params

    together = trained([range(len(starts))])
    alone = trained([[i] for i in range(len(starts))])
    for a, b, start in zip(together, alone, starts, strict=True):
        close([a], [b], a.dtype)
        assert not torch.equal(a, start)


def transposed(x):
    return x.mT.contiguous().mT if x.ndim > 1 else torch.stack([x, x], 1)[:, 0]


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("layout", "shapes"),
    [(transposed, SHAPES), (channels_last, ((4, 3, 5, 5), (2, 6, 3, 3)))],
    ids=["transposed", "channels-last"],
)
@pytest.mark.parametrize("which", ["params", "gradients", "both"])
def test_memory_layout_changes_nothing(make, layout, shapes, which):
    right = tensors(*shapes)
    run(make(right), right, range(3))
    starts = tensors(*shapes)
    params = [layout(x) for x in starts] if which != "gradients" else starts
    strides = [x.stride() for x in params]
    if which != "gradients":
        assert not any(x.is_contiguous() for x in params)
    opt = make(params)
    run(opt, params, range(3), layout if which != "params" else None)
    close(params, right)
    assert [x.stride() for x in params] == strides


@pytest.mark.parametrize("name", NSFS)
def test_complex_parameters_are_two_reals(name):
    """SMI is not in this test: Algorithm 1 of a complex matrix is its whole spectrum, which is not
    two half spectra; its judge covers it in test_smi_against_algorithm1."""
    ours = tensors(*SHAPES, dtype=torch.complex64)
    theirs = [torch.view_as_real(x).clone() for x in ours]
    one, two = SETTINGS[name](ours), SETTINGS[name](theirs)
    for t in range(3):
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            (a.grad,) = tensors(a.shape, dtype=a.dtype, seed=100 * t + i)
            b.grad = torch.view_as_real(a.grad).clone()
        one.step()
        two.step()
    close([torch.view_as_real(x) for x in ours], theirs)


@pytest.mark.parametrize("name", SMIS)
def test_complex_gradients_are_filtered_and_steps_go_against_them(name):
    (param,) = tensors((4, 6), dtype=torch.complex64)
    opt = SETTINGS[name]([param])
    first = param.abs().square().sum().item()
    for _ in range(10):
        param.grad = 2 * param.clone()
        opt.step()
    assert param.abs().square().sum().item() < first
    assert opt.state[param]["smi_history"].shape == (4, 6)


@pytest.mark.parametrize("shape", [(), (1,), (1, 7), (7, 1), (0,), (0, 3), (3, 0)])
def test_shapes_at_the_edge(make, shape):
    (param,) = params = tensors(shape)
    start = param.clone()
    opt = make(params)
    run(opt, params, range(3))
    assert param.isfinite().all()
    assert (param != start).all()
    opt.load_state_dict(opt.state_dict())
    run(opt, params, range(3, 4))


# ---------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("slow", "fast"),
    [
        *[
            (nsf(p, scale, "loop"), nsf(p, scale, path))
            for p, scale in itertools.product(EXPONENTS, SCALES)
            for path in ("foreach", "fused")
        ],
        *[
            (smi(base, foreach=False), smi(base))
            for base in BASES
            if base != "Lion"  # a sign is no function of its argument to rounding
        ],
    ],
)
def test_fast_paths_equal_the_loop(slow, fast):
    """Groups that differ, parameters whose gradient is missing at times."""
    results = []
    for make in (slow, fast):
        params = tensors(*SHAPES, (2, 3), (4, 6))
        opt = make([{"params": params[:2], "lr": 3e-2}, {"params": params[2:]}])
        for t in range(6):
            run(opt, params[: 2 + t % 4], [t])
            opt.zero_grad()
        results.append(params)
    close(results[1], results[0])


@pytest.mark.parametrize("base", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_the_base_s_own_paths_are_open(base):
    results = []
    for foreach in (False, True):
        params = tensors(*SHAPES)
        results.append(run(smi(base)(params, foreach=foreach), params, range(4)))
    close(*results)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("p", EXPONENTS)
def test_a_default_dtype_of_double_changes_nothing(p, path):
    right = tensors(*SHAPES)
    run(nsf(p, "adam", path)(right), right, range(3))
    torch.set_default_dtype(torch.float64)
    try:
        found = tensors(*SHAPES)
        run(nsf(p, "adam", path)(found), found, range(3))
    finally:
        torch.set_default_dtype(torch.float32)
    close(found, right)


# ---------------------------------------------------------------- steps


def test_without_gradients_a_step_does_nothing(make):
    params = tensors(*SHAPES)
    opt = make(params)
    state = opt.state_dict()["state"]  # Adagrad is born with some
    before = copy.deepcopy((params, [list(entries.values()) for entries in state.values()]))
    opt.step()
    assert all(map(torch.equal, params, before[0]))
    after = opt.state_dict()["state"].values()
    for entries, right in zip(after, before[1], strict=True):
        assert all(map(torch.equal, entries.values(), right))


@pytest.mark.parametrize("set_to_none", [True, False])
def test_first_gradients_of_zero_move_nothing(make, set_to_none):
    params = tensors(*SHAPES)
    settings = {"weight_decay": 0.0} if "weight_decay" in make(params).defaults else {}
    params = tensors(*SHAPES)
    opt = make(params, **settings)
    for param in params:
        param.grad = torch.ones_like(param)
    opt.zero_grad(set_to_none=set_to_none)
    assert all((p.grad is None) == set_to_none for p in params)
    opt.step()
    assert all(map(torch.equal, params, tensors(*SHAPES)))


@pytest.mark.parametrize(
    "make", [SETTINGS[name] for name in SETTINGS if "Lion" not in name], ids=lambda f: ""
)
def test_a_step_is_counted_where_there_is_a_gradient(make):
    """The groups' counters, which schedules follow, count every step of the optimizer."""
    params = tensors(*SHAPES)
    opt = make(params)
    for t in range(6):
        run(opt, params[: 1 + t % 3], [t])
        opt.zero_grad()
    group = opt.param_groups[0]
    assert group["smi_step" if "smi" in group else "step"] == 6
    for param, count in zip(params, (6, 4, 2), strict=True):
        if "step" in opt.state[param]:  # SGD counts nothing
            assert opt.state[param]["step"] == count


def test_maximize_is_to_minimize_the_negative(make):
    up, down = tensors(*SHAPES), tensors(*SHAPES)
    run(make(up, maximize=True), up, range(4))
    run(make(down), down, range(4), torch.neg)
    close(up, down)
    assert not torch.equal(up[0], tensors(*SHAPES)[0])


@pytest.mark.parametrize("name", [name for name in SETTINGS if "Lion" not in name])
def test_the_learning_rate_may_be_a_tensor_that_is_changed_in_place(name):
    make = SETTINGS[name]
    numbers, ours = tensors(*SHAPES), tensors(*SHAPES)
    one, two = make(numbers, lr=0.02), make(ours, lr=torch.tensor(0.02))
    for t in range(4):
        run(one, numbers, [t])
        run(two, ours, [t])
        one.param_groups[0]["lr"] /= 2
        two.param_groups[0]["lr"] /= 2
    close(ours, numbers)
    assert isinstance(two.param_groups[0]["lr"], torch.Tensor)


def test_global_step_hooks_see_every_optimizer_that_steps(make):
    """Torch's hook for all optimizers: SMI and its base are two of them, and both step."""
    params = tensors(*SHAPES)
    opt = make(params)
    calls = []
    handles = [
        register_optimizer_step_pre_hook(lambda o, args, kwargs: calls.append(("pre", o))),
        register_optimizer_step_post_hook(lambda o, args, kwargs: calls.append(("post", o))),
    ]
    try:
        run(opt, params, [0])
    finally:
        for handle in handles:
            handle.remove()
    base = getattr(opt, "base", None)
    inner = [("pre", base), ("post", base)] if base else []
    assert calls == [("pre", opt), *inner, ("post", opt)]


# ---------------------------------------------------------------- groups


def test_parameters_may_come_from_a_generator(make):
    params = tensors(*SHAPES)
    opt = make(param for param in params)
    assert opt.param_groups[0]["params"] == params
    groups = ({"params": [param]} for param in params)
    assert len(make(groups).param_groups) == 3


def test_no_parameters_at_all_are_refused(make):
    with pytest.raises(ValueError, match="empty parameter list"):
        make([])


def test_a_tensor_is_no_list_of_parameters(make):
    with pytest.raises(TypeError, match="iterable of Tensors"):
        make(torch.ones(3))


def test_a_parameter_twice_in_a_group_is_warned_of_and_twice_in_all_is_refused(make):
    (param,) = tensors((3, 4))
    with pytest.warns(UserWarning, match="duplicate parameters"):
        make([param, param])
    with pytest.raises(ValueError, match="more than one parameter group"):
        make([{"params": [param]}, {"params": [param]}])


@pytest.mark.parametrize("wrong", [[1], None, torch.ones(2)], ids=["list", "None", "tensor"])
def test_a_group_that_is_no_dict_is_refused(make, wrong):
    opt = make(tensors(*SHAPES))
    with pytest.raises(TypeError, match="param_group must be a dict"):
        opt.add_param_group(wrong)
    assert len(opt.param_groups) == 1


def test_a_group_added_in_training_goes_on_as_one_that_was_there(make):
    """Its parameters had no gradient until then: there is nothing else to tell them apart."""
    settings = {"lr": 3e-2}
    there, added = tensors(*SHAPES), tensors(*SHAPES)
    one = make([{"params": there[:1]}, {"params": there[1:], **settings}])
    two = make(added[:1])
    needs_groups_that_are_added(two)
    run(one, there[:1], range(3))
    run(two, added[:1], range(3))
    two.add_param_group({"params": (param for param in added[1:]), **settings})
    run(one, there, range(3, 6))
    run(two, added, range(3, 6))
    assert all(map(torch.equal, there, added))


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"lr": torch.tensor(-1.0)}, ValueError, r"lr must be at least 0, got -1\.0"),
        ({"lr": torch.tensor(1j)}, TypeError, "lr must be a number, got 1j"),
        ({"lr": float("nan")}, ValueError, "lr must be finite, got nan"),
        ({"lr": True}, TypeError, "lr must be a number, got True"),
        ({"betas": (0.9, 1.5)}, ValueError, r"betas\[1\] must be below 1, got 1\.5"),
        ({"weight_decay": -0.1}, ValueError, r"weight_decay must be at least 0, got -0\.1"),
        ({"p": -3.5}, ValueError, r"p must be at least -3, got -3\.5"),
        ({"foreach": 1}, TypeError, "foreach must be True or False, got 1"),
        ({"fused": "yes"}, TypeError, "fused must be True or False, got 'yes'"),
        ({"foreach": True, "fused": True}, ValueError, "foreach must be None where fused is True"),
        ({"foreach": False, "fused": True}, ValueError, "must be None where fused is True, got F"),
    ],
    ids=str,
)
def test_an_error_of_nsf_names_argument_and_value(settings, error, message):
    """Others are in test_nsf, and SMI's in test_smi; a base's are its own."""
    with pytest.raises(error, match=message):
        bw.NSF(tensors(*SHAPES), **settings)


@pytest.mark.parametrize("base", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NSF"])
def test_a_base_s_own_checks_come_first(base):
    with pytest.raises(ValueError, match=r"lr.* -1|learning rate: -1"):
        smi(base)(tensors(*SHAPES), lr=-1.0)


# ---------------------------------------------------------------- state


def test_the_state_does_not_depend_on_who_had_gradients_first(make):
    """Its keys are places in the groups, not the order in which the entries were made."""
    forward, backward = tensors(*SHAPES), tensors(*SHAPES)
    one, two = make(forward), make(backward)
    for order, params, opt in ((1, forward, one), (-1, backward, two)):
        for i in range(3)[::order]:
            (params[i].grad,) = tensors(params[i].shape, seed=i)
            opt.step()
            opt.zero_grad()
    assert one.state_dict()["state"].keys() == two.state_dict()["state"].keys() == {0, 1, 2}
    third = make(tensors(*SHAPES))
    third.load_state_dict(two.state_dict())
    for i, state in two.state_dict()["state"].items():
        for name, value in state.items():
            assert torch.equal(third.state_dict()["state"][i][name], value)


@pytest.mark.parametrize("named", [(True, False), (False, True), (True, True)], ids=str)
def test_names_neither_help_nor_hinder_loading(make, named):
    """Parameters are matched by their place, as in torch, and take saved names where there are."""
    params, others = tensors(*SHAPES), tensors(*SHAPES)
    one, two = (
        make([(f"{letter}{i}", x) for i, x in enumerate(some)] if has_names else some)
        for letter, some, has_names in (("a", params, named[0]), ("b", others, named[1]))
    )
    run(one, params, range(3))
    run(two, others, range(1))
    two.load_state_dict(copy.deepcopy(one.state_dict()))  # torch's own share what they load
    for a, b in zip(params, others, strict=True):
        b.copy_(a)
    run(one, params, range(3, 5))
    run(two, others, range(3, 5))
    assert all(map(torch.equal, params, others))
    letter = "a" if named[0] else "b"
    assert two.param_groups[0]["param_names"] == [f"{letter}{i}" for i in range(3)]


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
def test_copies_have_all_that_a_copied_adamw_has(make, copied):
    """Every public attribute, equal, and the state; not the hooks, which torch leaves behind."""
    params = tensors(*SHAPES)
    opt = make(params)
    bare = torch.optim.AdamW(tensors(*SHAPES))
    run(opt, params, range(3))
    calls = []
    if copied is copy.deepcopy:  # a function of a test has no name to pickle it by
        for some in (opt, bare):
            some.register_step_post_hook(lambda o, args, kwargs: calls.append(o))
            some.register_state_dict_post_hook(lambda o, saved: calls.append(o))
    twin, bare_twin = copied(opt), copied(bare)

    def public(some):
        return {name for name in vars(some) if not name.startswith("_")}

    assert public(twin) == public(opt)
    assert {*public(bare_twin), "base", "shard_work"} >= public(opt) - {"param_groups", "state"}
    # Unpickling gives torch's optimizers a default more.
    assert {**twin.defaults, **opt.defaults} == twin.defaults
    for a, b in zip(opt.param_groups, twin.param_groups, strict=True):
        assert {**a, "params": 0} == {**b, "params": 0}
    twins = twin.param_groups[0]["params"]
    run(twin, twins, range(3, 5))
    bare_twin.step()
    twin.state_dict()
    bare_twin.state_dict()
    assert not calls
    twin.register_step_post_hook(lambda o, args, kwargs: calls.append(o))
    run(twin, twins, range(5, 6))
    assert calls == [twin]
    run(opt, params, range(3, 6))
    assert all(map(torch.equal, params, twins))


def test_a_hook_on_what_is_saved_may_return_another(make):
    params = tensors(*SHAPES)
    opt = make(params)
    run(opt, params, range(2))
    first = opt.register_state_dict_post_hook(lambda o, saved: {"first": 1, **saved})
    opt.register_state_dict_post_hook(lambda o, saved: {"second": "first" in saved, **saved})
    assert opt.state_dict()["second"] is True
    first.remove()
    assert opt.state_dict()["second"] is False
    assert opt.state_dict()["state"].keys() == {0, 1, 2}
