"""Common training loops. Each is compared with a plain loop whose result is known."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import bandwise as bw

STEPS = 8
MAKE = {
    "SMI": lambda params: bw.SMI(torch.optim.AdamW(params, lr=1e-2), STEPS, q=0.5),
    "NSF": lambda params: bw.NSF(params, lr=1e-2, p=bw.Cyclic(0.9, -0.25, period=5)),
    "NSF-fused": lambda params: bw.NSF(params, lr=1e-2, p=0.7, fused=True),
    "SMI-NSF": lambda params: bw.SMI(bw.NSF(params, lr=1e-2, p=bw.Cyclic(0.9, 0, 5)), STEPS, q=0.5),
}


@pytest.fixture(params=MAKE)
def make(request):
    def made(dtype=torch.float32):
        torch.manual_seed(1)
        # Large enough for the fused kernels.
        model = nn.Sequential(nn.Linear(24, 96), nn.Tanh(), nn.Linear(96, 96), nn.Linear(96, 3))
        model.to(dtype)
        return model, MAKE[request.param](model.parameters())

    return made


def batch(t, size=8):
    generator = torch.Generator().manual_seed(t)
    x = torch.randn(size, 24, generator=generator)
    return x, x[:, :3].sin()


def loss_of(model, data):
    x, y = data
    dtype = next(model.parameters()).dtype
    return nn.functional.mse_loss(model(x.to(dtype)).float(), y)


def plain(model, opt, steps=range(STEPS)):
    for t in steps:
        opt.zero_grad()
        loss_of(model, batch(t)).backward()
        opt.step()
    return model


def equal(model, other):
    return all(map(torch.equal, model.state_dict().values(), other.state_dict().values()))


def recorded(opt):
    """The gradients that the optimizer gets, step by step."""
    seen = []
    opt.register_step_pre_hook(
        lambda opt, args, kwargs: seen.append(
            [param.grad.clone() for group in opt.param_groups for param in group["params"]]
        )
    )
    return seen


def replayed(make, gradients):
    """The result of a plain run with these gradients."""
    model, opt = make()
    for some in gradients:
        for param, gradient in zip(model.parameters(), some, strict=True):
            param.grad = gradient.clone()
        opt.step()
    return everything(model, opt)


def everything(model, opt):
    """The weights, state and settings, with histories and steps."""
    saved = opt.state_dict()
    tensors = [*model.state_dict().values()]
    tensors += [x for state in saved["state"].values() for x in state.values()]
    return copy.deepcopy((tensors, saved["param_groups"]))


def same(before, after):
    return before[1] == after[1] and all(map(torch.equal, before[0], after[0]))


def steps_of(opt):
    """The steps that the schedules use."""
    group = opt.param_groups[0]
    (count,) = {group[key] for key in ("smi_step", "step") if key in group}
    return count


# ---------------------------------------------------------------- mixed precision


def test_float16_autocast_with_a_scaler(make):
    """The scale is too large at first, so float16 overflows until the scaler has halved it.

    The skipped steps do not change weights, histories, state or schedules.
    """
    model, opt = make()
    start = loss_of(model, batch(0))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30, growth_interval=10**6)
    gradients, skipped = recorded(opt), 0
    for t in range(40):
        opt.zero_grad()
        before, scale = everything(model, opt), scaler.get_scale()
        with torch.autocast("cpu", torch.float16):
            loss = loss_of(model, batch(t))
        scaler.scale(loss).backward()
        scaler.unscale_(opt)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(opt)
        scaler.update()
        if scaler.get_scale() < scale:
            skipped += 1
            assert same(everything(model, opt), before)
    assert 5 < skipped < 30
    assert len(gradients) == 40 - skipped
    assert steps_of(opt) == 40 - skipped
    assert same(everything(model, opt), replayed(make, gradients))
    assert loss_of(model, batch(0)) < start


def test_bfloat16_autocast_gives_the_optimizer_single_precision(make):
    model, opt = make()
    start, gradients = loss_of(model, batch(0)), recorded(opt)
    for t in range(STEPS):
        opt.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(model, batch(t))
        loss.backward()
        opt.step()
    tensors, _ = everything(model, opt)
    assert {x.dtype for x in tensors} == {torch.float32}
    assert same(everything(model, opt), replayed(make, gradients))
    assert loss_of(model, batch(0)) < start


def test_pure_bfloat16_parameters_train(make):
    model, opt = make(torch.bfloat16)
    start = loss_of(model, batch(0))
    plain(model, opt, [0] * 20)
    assert {param.dtype for param in model.parameters()} == {torch.bfloat16}
    assert loss_of(model, batch(0)) < start / 2
    for state in opt.state_dict()["state"].values():
        assert all(x.isfinite().all() for x in state.values())


# ---------------------------------------------------------------- torch.compile


def test_a_compiled_model(make):
    model, opt = make()
    gradients = recorded(opt)
    plain(torch.compile(model, backend="aot_eager"), opt)
    assert len(gradients) == STEPS
    assert same(everything(model, opt), replayed(make, gradients))


def test_a_compiled_step_is_the_step(make):
    """Torch 2.13's inductor computes wrong steps of NSF from the third on."""
    model, opt = make()
    step = torch.compile(lambda: opt.step())
    for t in range(STEPS):
        opt.zero_grad()
        loss_of(model, batch(t)).backward()
        step()
    right, opt = make()
    assert equal(model, plain(right, opt))


def test_a_compiled_training_step(make):
    """Forward, backward and step are in one compiled function. The step is a graph break."""
    model, opt = make()

    @torch.compile(backend="eager")
    def train(data):
        opt.zero_grad()
        loss_of(model, data).backward()
        opt.step()

    for t in range(STEPS):
        train(batch(t))
    right, opt = make()
    assert equal(model, plain(right, opt))


# ---------------------------------------------------------------- gradients


def test_gradient_accumulation_is_one_step_of_the_sum(make):
    """It updates the history once and advances the schedules by one step."""
    model, opt = make()
    gradients, sums = recorded(opt), []
    for t in range(STEPS):
        opt.zero_grad()
        x, y = batch(t)
        losses = [loss_of(model, (x[i : i + 4], y[i : i + 4])) / 2 for i in (0, 4)]
        parts = [torch.autograd.grad(loss, [*model.parameters()], retain_graph=True)
                 for loss in losses]  # fmt: skip
        sums.append([a + b for a, b in zip(*parts, strict=True)])
        for loss in losses:
            loss.backward()
        opt.step()
    assert steps_of(opt) == STEPS
    assert all(all(map(torch.equal, *pair)) for pair in zip(gradients, sums, strict=True))
    assert same(everything(model, opt), replayed(make, sums))


def test_clipping_stands_before_the_filter(make):
    """The optimizer gets the clipped gradients. Clipping does not see the filtered ones."""
    model, opt = make()
    clipped = []
    for t in range(STEPS):
        opt.zero_grad()
        loss_of(model, batch(t)).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 2.0**-6)
        assert norm > 2.0**-6
        gradients = [param.grad.clone() for param in model.parameters()]
        length = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        assert length == pytest.approx(2.0**-6, rel=1e-3)
        clipped.append(gradients)
        opt.step()
    assert same(everything(model, opt), replayed(make, clipped))


def test_averaged_weights_follow_the_weights(make):
    model, opt = make()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.75))
    by_hand = None
    for t in range(STEPS):
        plain(model, opt, [t])
        average.update_parameters(model)
        now = [param.detach().clone() for param in model.parameters()]
        by_hand = (
            now if by_hand is None else [a.lerp(b, 0.25) for a, b in zip(by_hand, now, strict=True)]
        )
    assert all(map(torch.allclose, average.module.parameters(), by_hand))
    right, opt = make()
    assert equal(model, plain(right, opt))


def test_frozen_layers_stay_and_go_on_where_they_were_left(make):
    """Their gradients are None. No state is made for them, and existing state stays."""
    model, opt = make()
    frozen = model[2]
    frozen.requires_grad_(False)
    start = copy.deepcopy(frozen)
    plain(model, opt, range(3))
    assert equal(frozen, start)
    assert not any(opt.state.get(param) for param in frozen.parameters())
    frozen.requires_grad_(True)
    plain(model, opt, range(3, 5))
    assert not equal(frozen, start)
    frozen.requires_grad_(False)
    kept = copy.deepcopy(([*frozen.parameters()], [opt.state[p] for p in frozen.parameters()]))
    plain(model, opt, range(5, 8))
    assert all(map(torch.equal, frozen.parameters(), kept[0]))
    for param, state in zip(frozen.parameters(), kept[1], strict=True):
        assert all(torch.equal(opt.state[param][name], value) for name, value in state.items())


def test_a_parameter_without_a_gradient_in_some_steps_moves_in_the_others_alone(make):
    """It moves as in a training of those steps alone, but the schedules still advance."""
    model, opt = make()
    seen = []
    for t in range(STEPS):
        opt.zero_grad()
        loss_of(model, batch(t)).backward()
        if t % 3 == 1:
            for param in model[3].parameters():
                param.grad = None
        before = copy.deepcopy(model[3])
        opt.step()
        seen.append(equal(model[3], before))
    assert seen == [t % 3 == 1 for t in range(STEPS)]
    for param in model[3].parameters():
        if "step" in opt.state[param]:
            assert opt.state[param]["step"] == 5
    assert steps_of(opt) == STEPS
