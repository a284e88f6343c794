"""Long trainings and large models neither drift, nor grow, nor fail.

    python tests/test_long.py --schedules 1000000    # every step of every schedule
    python tests/test_long.py --counters 100000      # as many steps of the optimizers
    python tests/test_long.py --memory 10000         # resident memory over as many steps

The tests take fewer steps.
"""

import argparse
import gc
import math
import sys
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from torch import nn

import bandwise as bw
from bandwise.study.training import learning_rate_factor
from bandwise.tasks import Recipe

MILLION = 1_000_000


def exact(schedule, step, total):
    """The value in rational numbers, for shapes of straight lines."""
    match schedule:
        case bw.Constant(value=value):
            return Fraction(value)
        case bw.Linear(start=start, end=end):
            progress = Fraction(min(step, total), total)
            return Fraction(start) + (Fraction(end) - Fraction(start)) * progress
        case bw.Cyclic(high=high, low=low, period=period, shape=shape):
            phase = Fraction(step % period, period)
            height = {
                "triangular": abs(1 - 2 * phase),
                "sawtooth": 1 - phase,
                "square": Fraction(phase < Fraction(1, 2)),
            }[shape]
            return Fraction(low) + (Fraction(high) - Fraction(low)) * height
    raise AssertionError(schedule)


STRAIGHT = [
    bw.Constant(0.3),
    bw.Linear(0.1, 0.9),
    *(bw.Cyclic(0.7, -0.25, 777, shape) for shape in ("triangular", "sawtooth", "square")),
]
ROUNDING = 4 * sys.float_info.epsilon  # a few operations on numbers below 1


@pytest.mark.parametrize("schedule", STRAIGHT, ids=str)
def test_a_schedule_is_exact_to_rounding_after_a_million_steps(schedule):
    for step in (*range(1, 1000), *range(1, MILLION, 997), *range(MILLION - 1000, MILLION + 10)):
        error = Fraction(schedule(step, MILLION)) - exact(schedule, step, MILLION)
        assert abs(error) < ROUNDING


@pytest.mark.parametrize("shape", ["cosine", "triangular", "sawtooth", "square"])
def test_a_cycle_is_the_same_after_a_million_steps(shape):
    cycle = bw.Cyclic(0.7, -0.25, 777, shape)
    first = [cycle(step) for step in range(777)]
    for start in (777, 777 * 1287, 777 * 2**40):
        assert [cycle(start + step) for step in range(777)] == first


def test_ramps_never_turn_round_and_end_where_they_should():
    for ramp in (bw.Linear(0.1, 0.9), bw.Cosine(0.1, 0.5), bw.Cosine(0.9, 0.1)):
        values = [ramp(step, MILLION) for step in range(0, MILLION + 1, 101)]
        rising = ramp.end > ramp.start
        assert all((a <= b) if rising else (a >= b) for a, b in pairwise(values))
        assert ramp(MILLION, MILLION) == ramp(10 * MILLION, MILLION) == ramp.end


def test_the_learning_rate_of_a_million_steps():
    recipe = Recipe(steps=MILLION, lr=1.0)
    warm, last = MILLION // 20, learning_rate_factor(MILLION, recipe)
    assert learning_rate_factor(warm - 1, recipe) == warm / (warm + 1)
    assert learning_rate_factor(warm, recipe) == 1.0
    assert last == pytest.approx(recipe.min_lr_factor, abs=ROUNDING)
    middle = (warm + MILLION) // 2
    assert learning_rate_factor(middle, recipe) == pytest.approx(0.55, abs=1e-6)


def made(name, param, total=MILLION, **options):
    p = bw.Cyclic(0.7, -0.25, 777)
    if name == "smi":
        return bw.SMI(torch.optim.SGD([param], lr=0.0), total_steps=total, min_ndim=1, **options)
    return bw.NSF([param], lr=0.0, p=p, **options)


def counted(name, steps):
    """The counters after this number of steps."""
    param = nn.Parameter(torch.ones(2))
    param.grad = torch.ones(2)
    optimizer = made(name, param)
    for _ in range(steps):
        optimizer.step()
    return counters(optimizer, param)


def counters(optimizer, param):
    group = optimizer.param_groups[0]
    if isinstance(optimizer, bw.SMI):
        return [group["smi_step"]]
    return [group["step"], int(optimizer.state[param]["step"])]


@pytest.mark.parametrize("name", ["smi", "nsf"])
def test_counters_count(name):
    assert set(counted(name, 2000)) == {2000}


@pytest.mark.parametrize("name", ["smi", "nsf"])
def test_counters_go_on_from_a_million(name):
    """The counters come from a checkpoint."""
    param = nn.Parameter(torch.ones(2))
    param.grad = torch.ones(2)
    optimizer = made(name, param)
    optimizer.step()
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        for key in ("step", "smi_step"):
            if key in group:
                group[key] = MILLION
    for tensors in state["state"].values():
        if "step" in tensors:
            tensors["step"].fill_(MILLION)
    optimizer.load_state_dict(state)
    for _ in range(100):
        optimizer.step()
    assert set(counters(optimizer, param)) == {MILLION + 100}


# --- many tensors, and a large one ---------------------------------------------------------------


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("name", ["smi", "nsf"])
def test_a_thousand_tensors_are_each_trained_as_if_alone(name, foreach):
    torch.manual_seed(0)
    shapes = [(4, 6), (3, 5), (7,), (2, 3, 3), (1, 1)]
    params = [nn.Parameter(torch.randn(shapes[i % 5])) for i in range(1000)]
    single = [nn.Parameter(param.detach().clone()) for param in params]

    def build(some):
        if name == "smi":
            base = torch.optim.SGD(some, lr=0.1)
            return bw.SMI(base, total_steps=10, min_ndim=1, foreach=foreach)
        return bw.NSF(some, lr=0.1, p=0.7, foreach=foreach)

    together, alone = build(params), [build([param]) for param in single]
    for _ in range(3):
        for param, twin in zip(params, single, strict=True):
            param.grad = torch.randn_like(param)
            twin.grad = param.grad.clone()
        together.step()
        for optimizer in alone:
            optimizer.step()
    for param, twin in zip(params, single, strict=True):
        torch.testing.assert_close(param, twin)


def test_smi_filters_a_tensor_of_two_to_the_25():
    """torch.quantile refuses this size. The spectrum of a sum of waves is known."""
    rows, columns = 2**12, 2**13
    x = torch.arange(rows, dtype=torch.float64)[:, None] / rows
    y = torch.arange(columns, dtype=torch.float64)[None, :] / columns
    strong = torch.cos(2 * math.pi * (3 * x + 5 * y)).float()
    param = nn.Parameter(torch.zeros(rows, columns))
    noise = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) * 1e-3
    param.grad = strong + noise
    optimizer = bw.SMI(
        torch.optim.SGD([param], lr=1.0), total_steps=1, alpha=bw.Constant(1.0), q=0.75
    )
    optimizer.step()
    left = -param.detach() - strong
    # White noise has exponential powers. The largest quarter has (1 + ln 4) / 4 of their sum.
    kept = (left.square().mean() / noise.square().mean()).item()
    assert kept == pytest.approx((1 + math.log(4)) / 4, rel=0.01)


@pytest.mark.parametrize("foreach", [False, True])
def test_nsf_steps_a_tensor_of_two_to_the_25(foreach):
    param = nn.Parameter(torch.zeros(2**12, 2**13))
    random = torch.Generator().manual_seed(0)
    # Away from zero, so that eps has no effect.
    param.grad = 0.1 + torch.rand(2**12, 2**13, generator=random)
    bw.NSF([param], lr=0.1, p=0.7, weight_decay=0.0, foreach=foreach).step()
    # The first step has Adam's length, 1 per coordinate, and the direction g · (g²)^(-p).
    length = param.detach().double().norm().item() / (0.1 * 2**12.5)
    assert length == pytest.approx(1, rel=0.01)  # torch's norms, see docs/reliability.md
    power = param.detach() / param.grad.pow(1 - 2 * 0.7)
    assert (power.max() / power.min()).item() == pytest.approx(1, abs=1e-4)


# --- memory --------------------------------------------------------------------------------------


def resident():
    """The bytes of this process in memory (Linux)."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096


def grown(name, steps):
    """The growth of memory, in bytes and in Python's blocks, over the second ``steps`` steps."""
    torch.set_num_threads(1)
    param = nn.Parameter(torch.randn(16, 16))
    optimizer = made(name, param, total=2 * steps)
    random = torch.Generator().manual_seed(0)

    def run(count):
        for _ in range(count):
            param.grad = torch.randn(16, 16, generator=random)
            optimizer.step()
        gc.collect()
        return resident(), sys.getallocatedblocks()

    start, end = run(steps), run(steps)
    return end[0] - start[0], end[1] - start[1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("name", ["smi", "nsf"])
def test_memory_does_not_grow(name):
    """The growth is below one number per step, which takes 24 bytes in Python."""
    steps = 4000
    memory, blocks = grown(name, steps)
    assert blocks < steps / 10
    assert memory < 24 * steps


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=0)
    parser.add_argument("--counters", type=int, default=0)
    parser.add_argument("--memory", type=int, default=0)
    chosen = parser.parse_args()
    if total := chosen.schedules:
        for schedule in STRAIGHT:
            worst = max(
                abs(Fraction(schedule(step, total)) - exact(schedule, step, total))
                for step in range(1, total + 1)
            )
            sys.stdout.write(f"{schedule}: off by {float(worst):.1e} at most\n")
    if chosen.counters:
        for name in ("smi", "nsf"):
            sys.stdout.write(f"{name}: counters {counted(name, chosen.counters)}\n")
    if chosen.memory:
        for name in ("smi", "nsf"):
            memory, blocks = grown(name, chosen.memory)
            sys.stdout.write(f"{name}: {memory:+,} bytes, {blocks:+} blocks of Python\n")
