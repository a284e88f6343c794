"""Optimizers of the package ``pytorch_optimizer`` that need more than a name: SAM and Sophia.

They are used as ``papers.others.sam`` and ``papers.others.sophia``; the package
is imported with this module.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from pytorch_optimizer import SAM, SophiaH
from torch import Tensor
from torch.optim import AdamW, Optimizer

# Beside weights of some 0.02 it is small, and gradients differ by more than float32 rounds them.
_PROBE = 1e-3


def sam(
    params: Sequence[Tensor],
    lr: float,
    rho: float = 0.05,
    betas: tuple[float, float] = (0.9, 0.999),
    weight_decay: float = 0.01,
) -> Optimizer:
    """Sharpness-aware minimization around AdamW (Foret et al., 2021): two gradients a step."""
    return _Sam(params, AdamW, rho=rho, lr=lr, betas=betas, weight_decay=weight_decay)


def sophia(
    params: Sequence[Tensor],
    lr: float,
    rho: float = 0.01,
    betas: tuple[float, float] = (0.96, 0.99),
    weight_decay: float = 0.2,
    update_period: int = 10,
) -> Optimizer:
    """Sophia-H (Liu et al., 2023), with the paper's lr: no weight moves further in a step.

    The update is lr · clip(m / (rho · h), 1). The package writes the same as lr' · clip(m / h, p)
    with lr' = lr / rho and p = rho, and its decay goes with lr'.
    """
    return _Sophia(
        params,
        lr=lr / rho,
        betas=betas,
        weight_decay=weight_decay * rho,
        p=rho,
        update_period=update_period,
    )


class _Sam(SAM):
    """SAM whose step asks for its first gradient, too, as torch's optimizers do."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        if closure is None:
            raise ValueError("closure must be given: SAM evaluates the model twice a step")
        with torch.enable_grad():
            loss = closure()
        super().step(closure)
        return loss


class _Sophia(SophiaH):
    """Sophia-H with the Hessian's diagonal from differences of gradients.

    The package can differentiate twice itself, if the loss is so built; attention kernels cannot.
    It takes estimates from elsewhere, and these are Hutchinson's too: u · (g(θ + cu) - g(θ - cu)) /
    2c with u of random signs, by the closure and hence on the step's own batch. Where gradients are
    clipped, the diagonal is scaled as they are, and the update, their ratio, is not.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        if closure is None:
            raise ValueError("closure must be given: Sophia evaluates the model for its Hessian")
        with torch.enable_grad():
            loss = closure()
        done = self.param_groups[0].get("step", 0)
        super().step(
            hessian=self._diagonal(closure, done) if done % self.update_period == 0 else None
        )
        return loss

    @torch.no_grad()
    def _diagonal(self, closure: Callable[[], Any], seed: int) -> list[Tensor]:
        params = [param for group in self.param_groups for param in group["params"]]
        weights = [param.clone() for param in params]
        gradients = [_gradient(param).clone() for param in params]
        # The closure seeds torch's own generator, so that dropout is the same at both points.
        generator = torch.Generator().manual_seed(seed)
        signs = [
            (torch.randint(2, param.shape, generator=generator) * 2 - 1).to(param)
            for param in params
        ]
        sides = []
        for distance in (_PROBE, -_PROBE):
            for param, weight, sign in zip(params, weights, signs, strict=True):
                param.copy_(weight + distance * sign)
            with torch.enable_grad():
                closure()
            sides.append([_gradient(param).clone() for param in params])
        for param, weight, gradient in zip(params, weights, gradients, strict=True):
            param.copy_(weight)
            param.grad = gradient
        return [
            sign * (above - below) / (2 * _PROBE)
            for sign, above, below in zip(signs, *sides, strict=True)
        ]


def _gradient(param: Tensor) -> Tensor:
    return cast(Tensor, param.grad)
