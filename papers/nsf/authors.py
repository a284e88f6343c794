"""The public part of the training regime of NSF's authors, and two controls for their rule.

NSF extends the rule of arXiv 2405.18498, ``m̂ / (v̂^p + ε)``. The training follows their code for
"Asymmetric Momentum". SGD's learning rate is 0.1 and falls to a fifth after 20%, 40% and 60% of the
training. A decay of 5e-4 joins the gradient. There is no warm-up and no clipping. The ranges and
periods of p are not public. Those here are ours.

A cycle of p changes the weights of the coordinates and the length of the step. One control has the
cycle's weights and momentum SGD's length. The other has its length and momentum SGD's direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.optim.optimizer import ParamsT

from bandwise.optim.schedules import Cyclic
from bandwise.tasks import Recipe, cifar10, mnist_5k
from papers.nsf.stepping import Stepping, moments
from papers.nsf.with_cifar10 import with_cifar10
from papers.paper import Context, ScaleName
from papers.stored import condensed

_HERE = "papers.nsf.authors"
_DECAY = 5e-4
EPOCHS = 150
SGD = f"sgd:weight_decay={_DECAY:g}"
ADAM = f"adam:lr=0.001,weight_decay={_DECAY:g}"
# torch's SGD sums gradients in its momentum. NSF averages them. So 0.1 of torch's SGD is 1 here.
_RATE = 1.0
_NSF = f"lr={_RATE:g},weight_decay={_DECAY:g},decoupled_weight_decay=false"

_RECIPE = Recipe(
    steps=1500, lr=0.1, warmup=0.0, grad_clip=None, milestones=(0.2, 0.4, 0.6), gamma=0.2
)


class Mnist5k(mnist_5k.Mnist5k):
    """``mnist-5k`` in the authors' regime."""

    recipe = _RECIPE


class Cifar10(cifar10.Cifar10):
    """``cifar10`` in the authors' regime: at size ``"paper"`` their network and their epochs."""

    recipe = replace(_RECIPE, steps=1000)

    def __init__(self, size: ScaleName = "small", path: str | None = None) -> None:
        super().__init__(size, path, model="small" if size == "small" else "wideresnet")
        if size != "small":
            steps = EPOCHS * 45_000 // self.batch_size
            self.recipe = replace(_RECIPE, steps=steps, autocast="bfloat16")


class LengthOnly(Stepping):
    """Momentum SGD with the step length of the bare rule with a cycled exponent.

        u = m̂ · ‖m̂ / (v̂^p + ε)‖ / ‖m̂‖        per tensor

    Args:
        params: the parameters.
        lr: the learning rate.
        amplitude: p goes from the amplitude to its negative and back.
        period: the steps of a cycle.
        betas: the decays of both moments.
        eps: ε.
        weight_decay: the factor of θ in the gradient.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float,
        amplitude: float,
        period: int,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = _DECAY,
    ) -> None:
        self._p = Cyclic(amplitude, -amplitude, period)
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    def move(self) -> None:
        for group in self.param_groups:
            for theta in (param for param in group["params"] if param.grad is not None):
                state = self.state[theta]
                g = theta.grad + group["weight_decay"] * theta
                m_hat, v_hat = moments(state, g, group["betas"])
                bare = m_hat / (v_hat ** self._p(state["step"]) + group["eps"])
                length = m_hat.norm().clamp_min(torch.finfo(theta.dtype).tiny)
                theta -= group["lr"] * m_hat * (bare.norm() / length)


def bare(p: float) -> str:
    """The rule with a fixed exponent."""
    return f"nsf:p={p:g},scale=none,{_NSF}"


def cycled(amplitude: float, period: int, scale: str = "none") -> str:
    """The rule with an exponent that goes from the amplitude to its negative and back."""
    return f"nsf:p=cyclic({amplitude:g},-{amplitude:g},{period}),scale={scale},{_NSF}"


def length_only(amplitude: float, period: int) -> str:
    """The control that has only the cycled rule's length."""
    return f"{_HERE}.LengthOnly:amplitude={amplitude:g},period={period},lr={_RATE:g}"


def authors(context: Context) -> dict[str, Any]:
    """Their rule in their regime, with cycles of ours and the controls: one study for each task."""
    period = 200 if context.scale == "small" else 10 * 45_000 // 128
    mnist = [
        SGD,
        ADAM,
        *map(bare, (0, 0.1, -0.1)),
        *(cycled(amplitude, 300) for amplitude in (0.05, 0.1, 0.25)),
        cycled(0.1, 50),
        *(cycled(amplitude, 300, "sgd") for amplitude in (0.1, 0.25)),
        *(length_only(amplitude, 300) for amplitude in (0.1, 0.25)),
    ]
    cifar = [
        SGD,
        ADAM,
        bare(0),
        *(cycled(amplitude, period) for amplitude in (0.05, 0.1, 0.25)),
        cycled(0.1, period, "sgd"),
        length_only(0.1, period),
    ]

    def study(
        name: str, task: type, seeds: int, optimizers: Sequence[str], options: dict[str, Any]
    ) -> dict[str, Any]:
        path = f"{_HERE}.{task.__name__}"
        results = context.compare(path, optimizers, seeds=seeds, study=name, options=options)
        return condensed(results, curves=False)

    return {
        "mnist-5k": study("mnist-5k", Mnist5k, 5, mnist, {}),
        "cifar10": with_cifar10(
            context, lambda options: study("cifar10", Cifar10, 3, cifar, options)
        ),
    }
