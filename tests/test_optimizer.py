"""SMI and NSF can do what torch's optimizers can. The same tests run over many settings."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch.distributed.checkpoint import state_dict as dcp
from torch.optim import lr_scheduler

import bandwise as bw
from torch_versions import needs_groups_that_are_added

T = 30  # total_steps


def smi(base, **settings):
    return lambda params: bw.SMI(base(params), T, **settings)


def adamw(params, **settings):
    return torch.optim.AdamW(params, lr=1e-2, **settings)


def nsf(params, p=0.5, **settings):
    return bw.NSF(params, lr=1e-2, p=p, **settings)


SETTINGS = {
    "AdamW": smi(adamw),
    "Adam": smi(lambda params: torch.optim.Adam(params, lr=1e-2)),
    "SGD": smi(lambda params: torch.optim.SGD(params, lr=1e-2, momentum=0.9)),
    "RMSprop": smi(lambda params: torch.optim.RMSprop(params, lr=1e-2, alpha=0.9)),
    "Adagrad": smi(lambda params: torch.optim.Adagrad(params, lr=1e-2)),
    "NAdam": smi(lambda params: torch.optim.NAdam(params, lr=1e-2)),
    "AdamW-fused": smi(lambda params: adamw(params, fused=True)),
    "LBFGS": smi(lambda params: torch.optim.LBFGS(params, lr=1e-2, max_iter=3)),
    "refresh": smi(adamw, refresh_every=3),
    "bf16-history": smi(adamw, history_dtype=torch.bfloat16),
    "vectors": smi(adamw, min_ndim=1, alpha=bw.Linear(0.1, 0.9)),
    "constant": smi(adamw, alpha=0.5),
    "NSF": nsf,
    "NSF-cycled": lambda params: nsf(params, bw.Cyclic(0.9, -0.25, period=5), scale="sgd"),
    "SMI-NSF": smi(lambda params: nsf(params, bw.Cyclic(0.5, -0.25, period=5))),
}
WITHOUT_LBFGS = [name for name in SETTINGS if name != "LBFGS"]
IN_BFLOAT16 = [name for name in SETTINGS if name != "NAdam"]


def make(name, dtype=torch.float32, hidden=8):
    torch.manual_seed(1)
    layers = torch.nn.Conv1d(2, 3, 3), torch.nn.Tanh(), torch.nn.Flatten()
    model = torch.nn.Sequential(
        *layers, torch.nn.Linear(12, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 3)
    ).to(dtype)
    return model, SETTINGS[name](model.parameters())


def loss_of(model, t):
    generator = torch.Generator().manual_seed(t)
    x, y = (torch.randn(shape, generator=generator) for shape in ((5, 2, 6), (5, 3)))
    dtype = next(model.parameters()).dtype
    return torch.nn.functional.mse_loss(model(x.to(dtype)), y.to(dtype))


def train(model, opt, steps, closure=None):
    needs_closure = isinstance(getattr(opt, "base", None), torch.optim.LBFGS)
    for t in steps:

        def evaluate(t=t):
            opt.zero_grad()
            loss = loss_of(model, t)
            loss.backward()
            return loss

        if needs_closure if closure is None else closure:
            before = loss_of(model, t)
            assert torch.equal(opt.step(evaluate), before)
        else:
            evaluate()
            assert opt.step() is None


def same(a, b):
    """Compare types, dtypes and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def everything(model, opt):
    return copy.deepcopy((model.state_dict(), opt.state_dict()))


@pytest.fixture(params=SETTINGS)
def name(request):
    return request.param


# ---------------------------------------------------------------- an optimizer


def test_is_an_optimizer_that_trains(name):
    model, opt = make(name)
    assert isinstance(opt, torch.optim.Optimizer)
    before = loss_of(model, 0)
    train(model, opt, [0] * T)
    assert loss_of(model, 0) < before
    assert repr(opt).count("Parameter Group 0") == 1


@pytest.mark.parametrize("name", WITHOUT_LBFGS)
def test_a_closure_is_the_same_as_none(name):
    runs = [make(name), make(name)]
    for run, closure in zip(runs, (False, True), strict=True):
        train(*run, range(5), closure)
    assert same(everything(*runs[0]), everything(*runs[1]))


def test_zero_grad(name):
    model, opt = make(name)
    loss_of(model, 0).backward()
    opt.zero_grad(set_to_none=False)
    assert all((p.grad == 0).all() for p in model.parameters())
    opt.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_step_hooks(name):
    model, opt = make(name)
    calls = []
    pre = opt.register_step_pre_hook(lambda o, args, kwargs: calls.append(("pre", o)))
    post = opt.register_step_post_hook(lambda o, args, kwargs: calls.append(("post", o)))
    train(model, opt, [0])
    assert [kind for kind, _ in calls] == ["pre", "post"]
    assert all(o is opt for _, o in calls)
    pre.remove()
    post.remove()
    train(model, opt, [1])
    assert len(calls) == 2


# ---------------------------------------------------------------- schedulers of the learning rate


def sequential(opt):
    parts = [lr_scheduler.LinearLR(opt, 0.1, total_iters=3), lr_scheduler.StepLR(opt, 2)]
    return lr_scheduler.SequentialLR(opt, parts, milestones=[3])


def cyclic(opt):
    cycled = "momentum" in opt.defaults or "betas" in opt.defaults
    return lr_scheduler.CyclicLR(opt, 1e-3, 1e-2, step_size_up=2, cycle_momentum=cycled)


def one_cycle(opt):
    cycled = "momentum" in opt.defaults or "betas" in opt.defaults
    return lr_scheduler.OneCycleLR(opt, 1e-1, total_steps=T, cycle_momentum=cycled)


SCHEDULERS = {
    "LambdaLR": lambda opt: lr_scheduler.LambdaLR(opt, lambda t: 1 / (t + 1)),
    "MultiplicativeLR": lambda opt: lr_scheduler.MultiplicativeLR(opt, lambda t: 0.9),
    "StepLR": lambda opt: lr_scheduler.StepLR(opt, 2),
    "MultiStepLR": lambda opt: lr_scheduler.MultiStepLR(opt, [2, 3]),
    "ConstantLR": lambda opt: lr_scheduler.ConstantLR(opt, total_iters=3),
    "LinearLR": lr_scheduler.LinearLR,
    "ExponentialLR": lambda opt: lr_scheduler.ExponentialLR(opt, 0.9),
    "PolynomialLR": lr_scheduler.PolynomialLR,
    "CosineAnnealingLR": lambda opt: lr_scheduler.CosineAnnealingLR(opt, T),
    "CosineAnnealingWarmRestarts": lambda opt: lr_scheduler.CosineAnnealingWarmRestarts(opt, 3),
    "CyclicLR": cyclic,
    "OneCycleLR": one_cycle,
    "ReduceLROnPlateau": lambda opt: lr_scheduler.ReduceLROnPlateau(opt, patience=0),
    "SequentialLR": sequential,
    "ChainedScheduler": lambda opt: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ExponentialLR(opt, 0.9), lr_scheduler.StepLR(opt, 2)]
    ),
    "SWALR": lambda opt: torch.optim.swa_utils.SWALR(opt, swa_lr=0.05),
}


def test_no_scheduler_is_forgotten():
    assert set(SCHEDULERS) - {"SWALR"} == set(lr_scheduler.__all__) - {"LRScheduler"}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers(name, scheduler):
    """They give the same learning rates as with torch's optimizers, and the base uses them."""
    model, opt = make(name)
    bare = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1e-2, momentum=0.9)
    seen, right = [], []
    stepper = getattr(opt, "base", opt)
    stepper.register_step_pre_hook(lambda o, args, kwargs: seen.append(o.param_groups[0]["lr"]))
    with warnings.catch_warnings():
        # torch itself deprecates SequentialLR's call of step(epoch).
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="The epoch parameter")
        ours, theirs = SCHEDULERS[scheduler](opt), SCHEDULERS[scheduler](bare)
        metric = (1.0,) if scheduler == "ReduceLROnPlateau" else ()
        for t in range(6):
            train(model, opt, [t])
            right.append(bare.param_groups[0]["lr"])
            bare.step()
            ours.step(*metric)
            theirs.step(*metric)
    assert len(set(right)) > 1
    assert seen == right


@pytest.mark.parametrize("created", ["before", "after"])
def test_a_scheduler_created_before_or_after_loading(name, created):
    model, opt = make(name)
    scheduler = SCHEDULERS["CosineAnnealingLR"](opt)
    for t in range(4):
        train(model, opt, [t])
        scheduler.step()
    saved = copy.deepcopy((model.state_dict(), opt.state_dict(), scheduler.state_dict()))
    twin, opt2 = make(name)
    if created == "before":
        scheduler2 = SCHEDULERS["CosineAnnealingLR"](opt2)
    twin.load_state_dict(saved[0])
    opt2.load_state_dict(saved[1])
    if created == "after":
        scheduler2 = SCHEDULERS["CosineAnnealingLR"](opt2)
    scheduler2.load_state_dict(saved[2])
    assert opt2.param_groups[0]["lr"] == opt.param_groups[0]["lr"] < 1e-2
    for t in range(4, 8):
        for run, schedule in (((model, opt), scheduler), ((twin, opt2), scheduler2)):
            train(*run, [t])
            schedule.step()
    assert same(model.state_dict(), twin.state_dict())
    assert opt2.param_groups[0]["lr"] == opt.param_groups[0]["lr"]


# ---------------------------------------------------------------- GradScaler


@pytest.mark.parametrize("name", WITHOUT_LBFGS)  # torch: GradScaler takes no closure
def test_grad_scaler_and_the_step_it_skips(name):
    """Powers of two scale without rounding, so the run equals an unscaled one."""
    model, opt = make(name)
    train(model, opt, range(6))

    scaled, opt2 = make(name)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for t in [0, 1, 2, "overflow", 3, 4, 5]:
        opt2.zero_grad()
        scaler.scale(loss_of(scaled, 0 if t == "overflow" else t)).backward()
        if t == "overflow":
            next(scaled.parameters()).grad.view(-1)[0] = torch.inf
            before = everything(scaled, opt2)
        scaler.step(opt2)
        scaler.update()
        if t == "overflow":
            assert same(everything(scaled, opt2), before)
            assert scaler.get_scale() == 2.0**9
    assert same(everything(scaled, opt2), everything(model, opt))


# ---------------------------------------------------------------- copies


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
@pytest.mark.parametrize("name", WITHOUT_LBFGS)  # torch: a copied LBFGS lacks its _params
def test_copies_go_their_own_way(name, copied):
    model, opt = make(name)
    train(model, opt, range(4))
    twin, opt2 = copied((model, opt))
    assert type(opt2) is type(opt)
    assert {**opt2.defaults, **opt.defaults} == opt2.defaults
    before = everything(model, opt)
    train(twin, opt2, range(4, 8))
    assert same(everything(model, opt), before)
    train(model, opt, range(4, 8))
    assert same(everything(model, opt), everything(twin, opt2))
    assert not same(everything(model, opt), before)


# ---------------------------------------------------------------- saving and loading


def resumed(name, dtype=torch.float32):
    """An uninterrupted run of 12 steps, and one that is loaded into new objects after 7."""
    model, opt = make(name, dtype)
    train(model, opt, range(7))
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "opt": opt.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    train(model, opt, range(7, 12))
    twin, opt2 = make(name, dtype)
    twin.load_state_dict(saved["model"])
    opt2.load_state_dict(saved["opt"])
    train(twin, opt2, range(7, 12))
    return everything(model, opt), everything(twin, opt2)


def test_a_resumed_run_equals_the_unbroken_one(name):
    unbroken, broken = resumed(name)
    assert same(unbroken, broken)


# torch's loading casts NAdam's mu_product, a scalar, to the parameter's dtype, even without SMI.
@pytest.mark.parametrize("name", IN_BFLOAT16)
def test_a_resumed_run_equals_the_unbroken_one_in_bfloat16(name):
    unbroken, broken = resumed(name, torch.bfloat16)
    assert all(x.isfinite().all() for x in unbroken[0].values())
    assert same(unbroken, broken)


def test_other_settings_are_overwritten_by_loading(name):
    """A checkpoint holds the settings, as it holds a learning rate."""
    _, opt = make(name)
    for group in opt.param_groups:
        group.update(lr=0.5, **({"smi_q": 0.75} if "smi" in group else {"p": 1.25}))
    _, opt2 = make(name)
    opt2.load_state_dict(opt.state_dict())
    for key in ("lr", "smi_q", "p"):
        assert opt2.param_groups[0].get(key) == opt.param_groups[0].get(key)


def test_saving_leaves_the_groups_alone(name):
    _, opt = make(name)
    before = [dict(group) for group in opt.param_groups]
    opt.state_dict()
    assert [dict(group) for group in opt.param_groups] == before


def test_what_was_loaded_is_not_shared(name):
    """NSF's moments and SMI's history are copies. A base of torch shares the loaded tensors."""
    model, opt = make(name)
    train(model, opt, range(3))
    saved = opt.state_dict()
    kept = copy.deepcopy(saved)
    twin, opt2 = make(name)
    opt2.load_state_dict(saved)
    train(twin, opt2, range(3, 6))
    torch_s = {
        key
        for state in saved["state"].values()
        for key in state
        if not (key.startswith("smi") or isinstance(getattr(opt, "base", opt), bw.NSF))
    }
    for state in (*saved["state"].values(), *kept["state"].values()):
        for key in torch_s:
            state.pop(key, None)
    assert any(saved["state"].values())
    assert same(saved, kept)


def test_the_base_loading_on_its_own_keeps_smi_in_step(name):
    model, opt = make(name)
    if isinstance(opt, bw.NSF):
        return
    twin, opt2 = make(name)
    train(model, opt, range(4))
    train(twin, opt2, range(4))
    opt2.base.load_state_dict(copy.deepcopy(opt2.base.state_dict()))
    assert opt2.param_groups is opt2.base.param_groups
    assert opt2.state is opt2.base.state
    train(model, opt, range(4, 8))
    train(twin, opt2, range(4, 8))
    assert same(model.state_dict(), twin.state_dict())


def schedule_of(saved):
    values = (value for group in saved["param_groups"] for value in group.values())
    return next((v for v in values if isinstance(v, dict) and "schedule" in v), {"schedule": 0})


def unknown_schedule(saved):
    schedule_of(saved)["schedule"] = "Zigzag"
    return saved


def schedule_without_a_field(saved):
    schedule = schedule_of(saved)
    del schedule[[*schedule][1]]
    return saved


def schedule_without_name(saved):
    del schedule_of(saved)["schedule"]
    return saved


def lose_a_setting(saved):
    group = saved["param_groups"][0]
    del group["smi_q" if "smi_q" in group else "scale"]
    return saved


def wrong_setting(saved):
    group = saved["param_groups"][0]
    group["smi_q" if "smi_q" in group else "eps"] = "much"
    return saved


def one_group_more(saved):
    saved["param_groups"].append({**saved["param_groups"][0], "params": []})
    return saved


def one_parameter_fewer(saved):
    saved["param_groups"][0]["params"].pop()
    return saved


def state_of_strings(saved):
    for state in saved["state"].values():
        for key in state:
            if key in ("smi_history", "exp_avg"):
                state[key] = "lost"
    return saved


def of_bare_adamw(saved):
    model = make("NSF")[0]
    bare = adamw(model.parameters())
    train(model, bare, range(2))
    return bare.state_dict()


@pytest.mark.parametrize(
    "broken",
    [
        unknown_schedule,
        schedule_without_a_field,
        schedule_without_name,
        lose_a_setting,
        wrong_setting,
        one_group_more,
        one_parameter_fewer,
        state_of_strings,
        of_bare_adamw,
    ],
    ids=lambda f: f.__name__,
)
def test_what_does_not_fit_is_refused_and_changes_nothing(name, broken):
    if broken.__name__.startswith(("unknown", "schedule")) and name in ("constant", "NSF"):
        return  # They have no schedule.
    model, opt = make(name)
    train(model, opt, range(3))
    bad = broken(copy.deepcopy(opt.state_dict()))
    before, groups, state = everything(model, opt), opt.param_groups, opt.state
    message = "state_dict"
    if broken is of_bare_adamw and isinstance(opt, bw.NSF):
        message = (
            "^the state_dict is not an NSF's: its groups lack p, scale or step; "
            "to go on from AdamW, start NSF anew$"
        )
    elif broken is of_bare_adamw:
        message = "^the state_dict is not an SMI's: load it into the base before that is wrapped$"
    with pytest.raises(ValueError, match=message):
        opt.load_state_dict(bad)
    assert same(everything(model, opt), before)
    assert opt.param_groups is groups
    assert opt.state is state


def test_a_model_of_other_shapes_is_refused_and_changes_nothing(name):
    model, opt = make(name)
    donor, opt2 = make(name, hidden=11)
    train(model, opt, range(3))
    train(donor, opt2, range(2))
    before, groups = everything(model, opt), opt.param_groups
    what = "exp_avg" if isinstance(opt, bw.NSF) else "smi_(history|mask)"
    with pytest.raises(ValueError, match=rf"^the state_dict's {what} of parameter [0-9] has shape"):
        opt.load_state_dict(opt2.state_dict())
    assert same(everything(model, opt), before)
    assert opt.param_groups is groups


@pytest.mark.parametrize("name", ["AdamW", "SGD", "RMSprop", "LBFGS", "SMI-NSF"])
@pytest.mark.parametrize("other", ["AdamW", "SGD", "RMSprop", "LBFGS", "SMI-NSF"])
@pytest.mark.parametrize("steps", [0, 3])
def test_the_state_dict_of_another_base_is_refused_and_changes_nothing(name, other, steps):
    if name == other or (name, other) == ("AdamW", "SMI-NSF"):
        return  # NSF's moments are AdamW's.
    model, opt = make(name)
    train(model, opt, range(3))
    donor, opt2 = make(other)
    train(donor, opt2, range(steps))
    before, state = everything(model, opt), opt.base.state
    kind = type(opt.base).__name__
    with pytest.raises(ValueError, match=f"^the state_dict does not fit {kind}: "):
        opt.load_state_dict(opt2.state_dict())
    assert same(everything(model, opt), before)
    assert opt.state is state


@pytest.mark.parametrize("name", ["AdamW", "NSF"])
@pytest.mark.parametrize("lost", ["param_groups", "state"])
def test_half_a_state_dict_is_refused(name, lost):
    model, opt = make(name)
    train(model, opt, range(2))
    before, saved = everything(model, opt), opt.state_dict()
    del saved[lost]
    with pytest.raises(ValueError, match=f"the state_dict lacks '{lost}': it must be what"):
        opt.load_state_dict(saved)
    assert same(everything(model, opt), before)


def test_a_setting_that_a_state_dict_lacks_is_named():
    _, opt = make("AdamW")
    saved = opt.state_dict()
    del saved["param_groups"][0]["smi_q"]
    with pytest.raises(ValueError, match="parameter groups do not fit: they lack 'smi_q'"):
        opt.load_state_dict(saved)


def test_a_failure_that_is_no_misfit_is_not_called_one(monkeypatch):
    model, opt = make("AdamW")
    train(model, opt, range(2))
    before = everything(model, opt)

    def load(self, state_dict):
        self.state = {}
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(torch.optim.AdamW, "load_state_dict", load)
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        opt.load_state_dict(opt.state_dict())
    assert same(everything(model, opt), before)


def test_state_dict_hooks(name):
    """Hooks see and may change saved data, and loaded data before it is checked."""
    model, opt = make(name)
    train(model, opt, range(2))
    calls = []
    opt.register_state_dict_pre_hook(lambda o: calls.append(("before", o)))
    opt.register_state_dict_post_hook(
        lambda o, saved: calls.append(("saved", o)) or {"version": 1, **saved}
    )
    saved = opt.state_dict()
    assert saved["version"] == 1
    hidden = {"version": 1, "hidden": copy.deepcopy(saved)}

    _, opt2 = make(name)
    opt2.register_load_state_dict_pre_hook(lambda o, d: calls.append(("before", o)) or d["hidden"])
    opt2.register_load_state_dict_post_hook(lambda o: calls.append(("loaded", o)))
    opt2.load_state_dict(hidden)
    right = [("before", opt), ("saved", opt), ("before", opt2), ("loaded", opt2)]
    assert [what for what, _ in calls] == [what for what, _ in right]
    assert all(found is expected for (_, found), (_, expected) in zip(calls, right, strict=True))
    assert hidden.keys() == {"version", "hidden"}
    del saved["version"]
    assert same(opt2.state_dict(), saved)


def test_a_group_s_own_key_that_was_not_saved_is_no_misfit(name):
    model, opt = make(name)
    train(model, opt, range(2))
    saved = copy.deepcopy(opt.state_dict())
    opt.param_groups[0]["tag"] = "mine"
    opt.load_state_dict(saved)
    assert same(opt.state_dict(), saved)


@pytest.mark.parametrize("name", SETTINGS)
def test_save_hooks_see_plain_data(name):
    _, opt = make(name)

    def check(optimizer, saved):
        for group in saved["param_groups"]:
            assert not any(isinstance(value, bw.Schedule) for value in group.values())

    opt.register_state_dict_post_hook(check)
    opt.state_dict()


# In torch, strict loading needs state for every parameter, which LBFGS lacks. Flat loading keeps
# the state that a new optimizer has after a step of zeros. Adagrad has state from the start and
# skips that step.
@pytest.mark.parametrize(
    ("name", "flat"),
    [(name, False) for name in WITHOUT_LBFGS]
    + [(name, True) for name in WITHOUT_LBFGS if name != "Adagrad"],
)
def test_distributed_checkpoint(name, flat):
    options = dcp.StateDictOptions(flatten_optimizer_state_dict=flat)
    model, opt = make(name)
    train(model, opt, range(4))
    opt.zero_grad()
    saved = copy.deepcopy(dcp.get_optimizer_state_dict(model, opt, options=options))
    weights = copy.deepcopy(model.state_dict())
    assert any(key.startswith("state.") for key in saved) == flat
    train(model, opt, range(4, 8))

    twin, opt2 = make(name)
    dcp.set_optimizer_state_dict(twin, opt2, saved, options=options)
    twin.load_state_dict(weights)
    train(twin, opt2, range(4, 8))
    assert same(everything(model, opt), everything(twin, opt2))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("name", ["AdamW", "bf16-history", "refresh", "NSF-cycled", "SMI-NSF"])
def test_distributed_checkpoint_on_disk(name, tmp_path):
    model, opt = make(name)
    train(model, opt, range(4))
    opt.zero_grad()
    saved = {"opt": dcp.get_optimizer_state_dict(model, opt)}
    torch.distributed.checkpoint.save(saved, checkpoint_id=tmp_path, no_dist=True)

    twin, opt2 = make(name)
    loaded = {"opt": dcp.get_optimizer_state_dict(twin, opt2)}
    torch.distributed.checkpoint.load(loaded, checkpoint_id=tmp_path, no_dist=True)
    dcp.set_optimizer_state_dict(twin, opt2, loaded["opt"])
    assert same(opt2.state_dict(), opt.state_dict())


# ---------------------------------------------------------------- parameter groups


@pytest.mark.parametrize("name", WITHOUT_LBFGS)  # torch: LBFGS has one group
def test_a_group_added_while_training(name):
    model, opt = make(name)
    needs_groups_that_are_added(opt)
    train(model, opt, range(3))
    extra = torch.nn.Parameter(torch.randn(6, 4))
    given = {"params": [extra], "lr": 0.5}
    opt.add_param_group(given)
    assert given == {"params": [extra], "lr": 0.5}
    first, second = opt.param_groups
    assert second["lr"] == 0.5
    for key in first.keys() - {"params", "lr"}:  # includes the counters of steps
        assert second[key] == first[key]
    before = extra.detach().clone()
    extra.grad = torch.randn(6, 4)
    opt.step()
    assert not torch.equal(extra, before)
    step = "smi_step" if "smi" in first else "step"
    assert first[step] == second[step] == 4
    # It is saved and loaded like the other groups.
    _, opt2 = make(name)
    opt2.add_param_group({"params": [torch.nn.Parameter(torch.zeros(6, 4))]})
    opt2.load_state_dict(opt.state_dict())
    assert same(opt2.state_dict(), opt.state_dict())


@pytest.mark.parametrize("name", WITHOUT_LBFGS)
def test_a_parameter_cannot_be_added_twice(name):
    model, opt = make(name)
    before = everything(model, opt)
    with pytest.raises(ValueError, match="more than one parameter group"):
        opt.add_param_group({"params": [next(model.parameters())]})
    assert same(everything(model, opt), before)


def test_named_parameters(name):
    model = make(name)[0]
    opt = SETTINGS[name](model.named_parameters())
    train(model, opt, range(2))
    saved = opt.state_dict()
    assert saved["param_groups"][0]["param_names"] == [n for n, _ in model.named_parameters()]
    opt.load_state_dict(saved)
    assert opt.param_groups[0]["param_names"] == saved["param_groups"][0]["param_names"]
