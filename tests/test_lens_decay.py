"""Decoupled weight decay is told from the step, for every optimizer, by a trial on a twin."""

import inspect
import warnings

import pytest
import torch
from torch import nn

import bandwise as bw
from bandwise.lens import Lens, Temporal
from bandwise.lens.decay import DecayTrial

LR, DECAY = 0.01, 0.1

# By class: whether its weight decay is decoupled, as its documentation says.
TORCH = {
    "ASGD": True,  # without momentum: see SGD
    "Adadelta": False,
    "Adafactor": True,
    "Adagrad": False,
    "Adam": False,
    "AdamW": True,
    "Adamax": False,
    "Muon": True,
    "NAdam": False,
    "RAdam": False,
    "RMSprop": False,
    "SGD": True,  # without momentum, coupled and decoupled decay are the same step
}
WITHOUT_DECAY = {"LBFGS", "Rprop", "SparseAdam"}


def matrices():
    return [nn.Parameter(torch.randn(4, 6))]


def made(kind, params=None, **settings):
    return kind(params or matrices(), lr=LR, weight_decay=DECAY, **settings)


def share(optimizer):
    """Of its first group; without a warning that it could not be tried."""
    with warnings.catch_warnings(action="error"):
        return DecayTrial(optimizer).shares()[0]


def test_every_optimizer_of_torch_is_known():
    optimizers = {
        name
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and kind is not torch.optim.Optimizer
    }
    assert optimizers == TORCH.keys() | WITHOUT_DECAY


@pytest.mark.parametrize("name", TORCH)
def test_torch_s_optimizers(name):
    kind = getattr(torch.optim, name)
    # ASGD shrinks by 1e-4 of its learning rate by itself.
    own = LR * 1e-4 if name == "ASGD" else 0.0
    right = LR * DECAY + own if TORCH[name] else 0.0
    assert share(made(kind)) == pytest.approx(right, rel=1e-6)
    if "decoupled_weight_decay" in inspect.signature(kind).parameters:
        optimizer = made(kind, decoupled_weight_decay=True)
        assert share(optimizer) == pytest.approx(LR * DECAY, rel=1e-6)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.RMSprop])
def test_momentum_remembers_a_coupled_decay(kind):
    assert share(made(kind, momentum=0.9)) == 0


@pytest.mark.parametrize("name", sorted(WITHOUT_DECAY))
def test_optimizers_without_decay(name):
    assert share(getattr(torch.optim, name)(matrices(), lr=LR)) == 0


@pytest.mark.parametrize("p", [0.7, 0.5, 0.0, -0.5])
@pytest.mark.parametrize("scale", ["adam", "sgd", "none"])
def test_nsf(p, scale):
    assert share(made(bw.NSF, p=p, scale=scale)) == pytest.approx(LR * DECAY, rel=1e-6)
    assert share(made(bw.NSF, p=p, scale=scale, decoupled_weight_decay=False)) == 0


@pytest.mark.parametrize("decoupled", [True, False])
def test_another_library(decoupled):
    lion = pytest.importorskip("pytorch_optimizer").Lion
    optimizer = made(lion, weight_decouple=decoupled)
    assert share(optimizer) == pytest.approx(LR * DECAY * decoupled, rel=1e-6)
    # Its decay does not depend on the learning rate.
    fixed = made(lion, weight_decouple=decoupled, fixed_decay=True)
    assert share(fixed) == pytest.approx(DECAY * decoupled, rel=1e-6)


@pytest.mark.parametrize("base", [torch.optim.AdamW, bw.NSF, torch.optim.Muon])
def test_smi_has_the_decay_of_its_base(tmp_path, base):
    seen = []

    class Seen(Temporal):
        def before(self, step):
            seen.extend(t.decay for t in step.tensors)
            super().before(step)

    params = matrices()
    optimizer = bw.SMI(made(base, params), 10)
    with Lens(nn.ParameterList(params), optimizer, out=tmp_path, quantities=[Seen()]):
        for _ in range(2):
            params[0].grad = torch.randn(4, 6)
            optimizer.step()
    assert seen == pytest.approx(2 * [LR * DECAY], rel=1e-6)


class Trust(torch.optim.Optimizer):
    """LAMB without moments: the gradient scales the decay."""

    def __init__(self, params, lr, weight_decay):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    step = param.grad.sign() + group["weight_decay"] * param
                    norm = step.norm()
                    if norm > 0:
                        param -= group["lr"] * param.norm() / norm * step


def test_a_decay_that_the_gradient_scales_is_part_of_the_step():
    assert share(made(Trust)) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"fused": True},
        {"foreach": True},
        {"differentiable": True},
        {"lr": torch.tensor(LR, dtype=torch.float64), "foreach": False},
        {"maximize": True},
        {"amsgrad": True},
    ],
)
def test_settings_of_adamw(settings):
    optimizer = torch.optim.AdamW(matrices(), **{"lr": LR, "weight_decay": DECAY, **settings})
    assert share(optimizer) == pytest.approx(LR * DECAY, rel=1e-6)


@pytest.mark.parametrize("shape", [(), (5,), (4, 3, 3, 3), (0, 4)])
def test_any_shape(shape):
    assert share(made(torch.optim.AdamW, [nn.Parameter(torch.ones(shape))])) > 0
    assert share(made(torch.optim.Adam, [nn.Parameter(torch.ones(shape))])) == 0


def test_groups_and_settings_that_change():
    params = [nn.Parameter(torch.ones(2, 2)) for _ in range(3)]
    groups = [{"params": [params[0]]}, {"params": [params[1]], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=DECAY)
    trial = DecayTrial(optimizer)
    assert trial.shares() == [0, 0]
    for group in optimizer.param_groups:
        group["lr"] = 1e-9  # as a warm-up begins
    assert trial.shares() == pytest.approx([1e-9 * DECAY, 0])
    optimizer.param_groups[0]["lr"] = LR
    optimizer.param_groups[1]["lr"] = 2 * LR
    assert trial.shares() == pytest.approx([LR * DECAY, 0])
    optimizer.param_groups[1]["weight_decay"] = 3 * DECAY
    assert trial.shares() == pytest.approx([LR * DECAY, 6 * LR * DECAY])
    optimizer.add_param_group({"params": [params[2]], "lr": LR, "weight_decay": 2 * DECAY})
    assert trial.shares() == pytest.approx([LR * DECAY, 6 * LR * DECAY, 2 * LR * DECAY])


def test_momentum_that_is_switched_on_makes_the_decay_coupled():
    optimizer = made(torch.optim.SGD)
    trial = DecayTrial(optimizer)
    assert trial.shares() == pytest.approx([LR * DECAY])
    optimizer.param_groups[0]["momentum"] = 0.9
    assert trial.shares() == [0]


# --- the training is left alone -----------------------------------------------------------------


class Noisy(torch.optim.SGD):
    """Draws from torch's generator and counts its steps."""

    steps = 0

    def step(self, closure=None):
        type(self).steps += 1
        with torch.no_grad():
            for param in self.param_groups[0]["params"]:
                param += torch.randn_like(param)
        return super().step(closure)


def test_torch_s_generator_parameters_and_state_are_left_alone():
    optimizer = made(Noisy)
    (param,) = optimizer.param_groups[0]["params"]
    before, generator = param.detach().clone(), torch.get_rng_state()
    group = dict(optimizer.param_groups[0])
    DecayTrial(optimizer).shares()
    assert Noisy.steps > 0
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(param, before)
    assert param.grad is None
    assert optimizer.state == {}
    assert optimizer.param_groups == [group]


def test_hooks_for_all_optimizers_do_not_see_the_twin():
    from torch.optim.optimizer import register_optimizer_step_post_hook

    seen = []
    handle = register_optimizer_step_post_hook(lambda optimizer, *_: seen.append(optimizer))
    try:
        assert share(made(torch.optim.AdamW)) > 0
    finally:
        handle.remove()
    assert seen == []


class Wrapper(torch.optim.AdamW):
    """An optimizer that cannot be made from parameter groups alone."""

    def __init__(self, other, name, **settings):
        super().__init__(other, **settings)


class Unknown(torch.optim.Optimizer):
    def __init__(self, params, weight_decay, other):
        super().__init__(params, {"lr": LR, "weight_decay": weight_decay})

    def step(self, closure=None):
        pass


def test_where_there_is_no_twin_a_few_classes_are_known(tmp_path):
    params = matrices()
    optimizer = Wrapper(params, "name", lr=LR, weight_decay=DECAY)

    def train():
        with Lens(nn.ParameterList(params), optimizer, out=tmp_path):
            for _ in range(3):
                params[0].grad = torch.randn(4, 6)
                optimizer.step()

    with pytest.warns(UserWarning, match="decay of Wrapper .* counts as decoupled") as warned:
        train()
    assert len(warned) == 1
    assert warned[0].filename == __file__
    trial = DecayTrial(optimizer)
    with pytest.warns(UserWarning, match="counts as decoupled"):
        assert trial.shares() == pytest.approx([LR * DECAY])
    unknown = DecayTrial(Unknown(matrices(), DECAY, None))
    with pytest.warns(UserWarning, match="counts as a part of the gradients"):
        assert unknown.shares() == [0]
    assert share(Unknown(matrices(), 0.0, None)) == 0


# --- what the lens shows ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Muon", "Adafactor"])
def test_decay_is_no_answer_to_the_gradient(tmp_path, name):
    """Large weights, and a decay beside which the steps are small: the response stays."""
    rows = []
    for decay in (0.0, 1.0):
        torch.manual_seed(0)
        param = nn.Parameter(20 * torch.randn(8, 8, dtype=torch.float64))
        optimizer = getattr(torch.optim, name)([param], lr=1e-4, weight_decay=decay)
        out = tmp_path / str(decay)
        with Lens(nn.ParameterList([param]), optimizer, out=out, quantities=[Temporal(64)]):
            for _ in range(64):
                param.grad = torch.randn(8, 8, dtype=torch.float64)
                optimizer.step()
        rows.append(next(row for row in Lens.read(out) if row["quantity"] == "temporal"))
    for band in ("low", "mid", "high"):
        key = f"response_{band}"
        assert rows[1][key] == pytest.approx(rows[0][key], rel=0.02)
