"""Small problems with known answers, which every setting solves or is listed as not solving."""

import math

import pytest
import torch

import bandwise as bw
from test_conformance import BASES

STEPS = 1000
# Each with the part of the start's loss that counts as solved.
PROBLEMS = {}


def problem(reached):
    def register(make):
        PROBLEMS[make.__name__] = make, reached
        return make

    return register


@problem(reached=1 / 24.2)
def rosenbrock():
    """Eight valleys. From (-1.2, 1) at 24.2 the floor of the valley, at 4.8, is found at once. At 1
    and below x is not negative, since (1 - x)^2 is a part of it: the valley's bend is passed."""
    start = torch.tensor([-1.2, 1.0]).repeat(4, 2)

    def loss(w, t):
        x, y = w.reshape(-1, 2).unbind(1)
        return ((1 - x) ** 2 + 100 * (y - x**2) ** 2).mean() / 24.2

    return start, loss


@problem(reached=0.1)
def quadratic():
    """Condition 10^4, in coordinates of its own, every one with the same share of the loss: a
    tenth of it means that the flattest, 100 away from the minimum, are solved like the others."""
    curvatures = torch.logspace(-4, 0, 16).view(4, 4)

    def loss(w, t):
        return (curvatures * w**2).mean()

    return curvatures.rsqrt(), loss


@problem(reached=0.1)
def saddle():
    """Down in x, then out along y, from a thousandth beside the ridge at loss 1 to 0 at y = ±1. On
    the ridge, where one who only follows x ends, it is 1/2."""

    def loss(w, t):
        x, y = w.reshape(-1, 2).unbind(1)
        return (x**2 + (y**2 - 1) ** 2).mean() / 2

    return torch.tensor([1.0, 1e-3]).repeat(4, 2), loss


@problem(reached=0.1)
def logistic():
    """Of 512 points one label in ten is wrong; batches of 32. The loss counts from the best that
    Newton's method finds with all points, in units of the start's distance to it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 16, generator=generator, dtype=torch.float64)
    right = (x @ torch.randn(16, generator=generator, dtype=torch.float64)) > 0
    y = (right ^ (torch.rand(512, generator=generator) < 0.1)).double()

    def full(w):
        return torch.nn.functional.binary_cross_entropy_with_logits(x @ w, y)

    best = torch.zeros(16, dtype=torch.float64)
    for _ in range(20):
        chance = torch.sigmoid(x @ best)
        hessian = (x.T * (chance * (1 - chance))) @ x
        best = best - torch.linalg.solve(hessian, x.T @ (chance - y))

    def loss(w, t):
        w = w.flatten().double()
        if t is None:
            return (full(w) - full(best)) / (math.log(2) - full(best))
        some = torch.randint(512, (32,), generator=torch.Generator().manual_seed(t))
        return torch.nn.functional.binary_cross_entropy_with_logits(x[some] @ w, y[some])

    return torch.zeros(4, 4), loss


# A learning rate for each problem, by what the optimizer's step is. Steps of the gradient: up to 1
# over the largest curvature, which is 1400 / 24.2 / 8 for Rosenbrock and 2 / 16 for the quadratic,
# and near 1 for the others. Steps of one length: a few hundred go the way, and one is short.
GRADIENT = {"rosenbrock": 0.1, "quadratic": 8.0, "saddle": 0.5, "logistic": 0.5}
AVERAGED = {name: 10 * lr for name, lr in GRADIENT.items()}  # torch's momentum sums ten gradients
LENGTH = {"rosenbrock": 0.02, "quadratic": 0.2, "saddle": 0.02, "logistic": 0.02}
SHRINKING = {name: 20 * lr for name, lr in LENGTH.items()}  # Adagrad's lr / sqrt(t)

RATES = {
    "SGD": GRADIENT, "Adam": LENGTH, "AdamW": LENGTH, "RMSprop": LENGTH, "Adagrad": SHRINKING,
    "Lion": LENGTH, "NSF": LENGTH,
}  # fmt: skip


def nsf(p, scale):
    def made(params, lr):
        return bw.NSF(params, lr=lr, p=p, scale=scale, weight_decay=0.0)

    rates = AVERAGED if scale == "sgd" or (scale == "none" and p == 0.0) else LENGTH
    return made, rates


SETTINGS = {
    **{
        f"SMI-{base}": (
            lambda params, lr, base=base: bw.SMI(BASES[base](params, lr=lr), STEPS), RATES[base],
        )
        for base in BASES
    },
    **{
        f"NSF-{p}-{scale}": nsf(p, scale)
        for p in (0.7, 0.5, 0.0, -0.25)
        for scale in ("adam", "sgd", "none")
    },
    "NSF-cycled": nsf(bw.Cyclic(0.5, -0.25, 200), "adam"),
}  # fmt: skip

# A negative power of what is small is small: without a scale, and at rates for steps of one length,
# p < 0 hardly moves once gradients are; the default scale cures that. Even with momentum SGD's step
# length p < 0 spends it where gradients are large, and the quadratic's flattest parts wait.
CANNOT = {
    ("NSF--0.25-none", "rosenbrock"): 0.166,
    ("NSF--0.25-none", "quadratic"): 0.716,
    ("NSF--0.25-none", "saddle"): 0.646,
    ("NSF--0.25-none", "logistic"): 0.235,
    ("NSF--0.25-sgd", "quadratic"): 0.156,
}


def trained(make, rates, name, steps=STEPS):
    start, loss = PROBLEMS[name][0]()
    param = start.clone().requires_grad_()
    opt = make([param], rates[name])
    # Steps of one length settle only if they shrink: half the way at the full rate, then down to 0.
    schedule = torch.optim.lr_scheduler.LambdaLR(opt, lambda t: min(1.0, 2 * (1 - t / steps)))
    for t in range(steps):
        opt.zero_grad()
        loss(param, t).backward()
        opt.step()
        schedule.step()
    with torch.no_grad():
        return param, (loss(param, None) / loss(start, None)).item()


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_solves_every_problem_or_is_listed(setting, name):
    _, left = trained(*SETTINGS[setting], name)
    reached = PROBLEMS[name][1]
    if (setting, name) in CANNOT:
        assert left > reached
        assert left == pytest.approx(CANNOT[setting, name], rel=0.05)
    else:
        assert left < reached


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("settings", [{"q": 0.0}, {"alpha": 0.0}], ids=str)
def test_a_filter_that_removes_nothing_trains_as_the_base(settings, base, name):
    def wrapped(params, lr):
        return bw.SMI(BASES[base](params, lr=lr), 30, **settings)

    def bare(params, lr):
        return BASES[base](params, lr=lr)

    one, two = (trained(make, RATES[base], name, 30)[0] for make in (wrapped, bare))
    assert torch.equal(one, two)
    assert not torch.equal(one, PROBLEMS[name][0]()[0])
