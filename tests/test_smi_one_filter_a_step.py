"""A base may evaluate several times a step: H moves once, and all gradients get one mask."""

import math

import pytest
import torch

import bandwise as bw
from algorithm1 import conjugate_place
from several import Several, Sharpness

T, ALPHA, BETA, Q = 12, bw.Linear(0.1, 0.9), 0.7, 0.5


class Literal:
    """Algorithm 1 whose lines 13 to 22 run at a step's first gradient alone.

    ``every`` and ``dtype`` are ``refresh_every`` and ``history_dtype``.
    """

    def __init__(self, every=1, dtype=None):
        self.every, self.dtype = every, dtype or torch.float64
        self.t, self.H = 0, None

    def begin_step(self):
        self.t += 1
        self.is_first = True

    def filter(self, G):
        G_hat = torch.fft.fft2(G)
        if self.is_first:
            M = (G_hat.abs() + conjugate_place(G_hat.abs())) / 2
            H = M if self.H is None else BETA * self.H + (1 - BETA) * M
            if (self.t - 1) % self.every == 0:
                self.mask = torch.quantile(H, Q) <= H
            self.H = H.to(self.dtype).double()
            self.is_first = False
        alpha = ALPHA(self.t, T)
        return alpha * torch.fft.ifft2(G_hat * self.mask).real + (1 - alpha) * G


def smi(base, **settings):
    return bw.SMI(base, T, alpha=ALPHA, beta=BETA, q=Q, **settings)


SETTINGS = [{}, {"refresh_every": 3}, {"history_dtype": torch.bfloat16}]
SETTINGS = [{**some, "foreach": foreach} for some in SETTINGS for foreach in (None, False)]
BASES = {
    "LBFGS": lambda params: torch.optim.LBFGS(params, lr=0.5, max_iter=4),
    "SAM": lambda params: Sharpness(params, lr=0.5),
}


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("name", BASES)
def test_a_base_that_evaluates_several_times(name, settings):
    """As if its closure ran the literal loop itself."""
    x, y = torch.randn(20, 6, dtype=torch.float64), torch.randn(20, 7, dtype=torch.float64)
    params = [torch.nn.Parameter(torch.zeros(6, 7, dtype=torch.float64)) for _ in range(2)]
    literal = Literal(settings.get("refresh_every", 1), settings.get("history_dtype"))
    evaluations = []

    def closure(param):
        param.grad = None
        loss = (x @ param - y).square().mean()
        loss.backward()
        return loss

    def literal_closure():
        loss = closure(params[1])
        params[1].grad = literal.filter(params[1].grad)
        evaluations.append(literal.t)
        return loss

    opt, bare = smi(BASES[name](params[:1]), **settings), BASES[name](params[1:])
    for _ in range(6):
        literal.begin_step()
        loss = opt.step(lambda: closure(params[0]))
        assert loss.item() == pytest.approx(bare.step(literal_closure).item(), rel=1e-9)
    assert len(evaluations) >= 12
    torch.testing.assert_close(*params)
    assert opt.param_groups[0]["smi_step"] == 6


def run(opt, gradients):
    """A step whose evaluations have these gradients; the filtered ones."""
    (param,) = opt.param_groups[0]["params"]
    coming = iter(gradients)

    def closure():
        param.grad = next(coming).clone()
        return 0.0

    opt.base.noted.clear()
    opt.step(closure)
    return [noted[0] for noted in opt.base.noted]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_history_moves_by_the_first_gradient_alone(settings):
    gradients = torch.randn(5, 3, 6, 7, dtype=torch.float64)
    opts = [
        smi(Several([torch.zeros(6, 7, dtype=torch.float64)], times, lr=0.0), **settings)
        for times in (1, 3)
    ]
    for some in gradients:
        once, several = (run(opt, some) for opt in opts)
        assert torch.equal(once[0], several[0])
        one, other = (next(iter(opt.state.values()))["smi_history"] for opt in opts)
        assert torch.equal(one, other)


@pytest.mark.parametrize("foreach", [None, False])
def test_a_history_that_is_rounded_gives_one_mask_a_step_too(foreach):
    """bfloat16 holds the magnitudes of a spectrum that is almost flat as one number."""
    gradient = 1e-4 * torch.randn(6, 8)
    gradient[0, 0] = 1.0
    opt = smi(
        Several([torch.zeros(6, 8)], 2, lr=0.0), history_dtype=torch.bfloat16, foreach=foreach
    )
    for _ in range(2):
        first, second = run(opt, [gradient, gradient])
        assert torch.equal(first, second)
        assert not torch.allclose(first, gradient, rtol=0, atol=1e-6)
    history = next(iter(opt.state.values()))["smi_history"]
    assert (history == history[0, 0]).all()


@pytest.mark.parametrize("foreach", [None, False])
@pytest.mark.parametrize("history_dtype", [None, torch.bfloat16])
def test_a_mask_is_kept_within_a_step_only_where_the_history_cannot_give_it(history_dtype, foreach):
    param = torch.zeros(6, 8)
    opt = smi(Several([param], 2, lr=0.0), history_dtype=history_dtype, foreach=foreach)
    held = []

    def closure():
        held.append("smi_mask" in opt.state.get(param, {}))
        param.grad = torch.randn(6, 8)
        return 0.0

    for _ in range(3):
        opt.step(closure)
        assert "smi_mask" not in opt.state[param]
    # The first step's state joins after the base's step.
    assert held[2:] == [False, history_dtype is not None] * 2


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_first_gradient_that_is_not_finite_leaves_the_mask_of_the_history(settings):
    param = torch.zeros(6, 7, dtype=torch.float64)
    opt = smi(Several([param], 2, lr=0.0), **settings)
    right = Literal(settings.get("refresh_every", 1), settings.get("history_dtype"))
    gradients = torch.randn(3, 6, 7, dtype=torch.float64)
    run(opt, gradients[:2])
    right.begin_step()
    right.filter(gradients[0])
    broken, found = run(opt, [torch.full((6, 7), math.nan, dtype=torch.float64), gradients[2]])
    assert broken.isnan().all()
    right.begin_step()
    right.is_first = False
    if right.every == 1:
        right.mask = torch.quantile(right.H, Q) <= right.H
    torch.testing.assert_close(found, right.filter(gradients[2]))


def test_the_next_step_does_not_use_the_mask_of_one_that_failed():
    param = torch.zeros(6, 8)
    opt = smi(Several([param], 2, lr=0.0), history_dtype=torch.bfloat16)
    run(opt, torch.randn(2, 6, 8))
    with pytest.raises(StopIteration):
        run(opt, torch.randn(1, 6, 8))
    twin = smi(Several([torch.zeros(6, 8)], 2, lr=0.0), history_dtype=torch.bfloat16)
    (other,) = twin.param_groups[0]["params"]
    twin.state[other]["smi_history"] = opt.state[param]["smi_history"].clone()
    twin.param_groups[0]["smi_step"] = 1
    gradients = torch.randn(2, 6, 8)
    for found, right in zip(run(opt, gradients), run(twin, gradients), strict=True):
        assert torch.equal(found, right)
