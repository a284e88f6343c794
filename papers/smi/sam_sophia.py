"""SAM and Sophia from the package ``pytorch_optimizer``, made to step as studies need it.

Studies name them ``papers.smi.sam_sophia.sam`` and ``papers.smi.sam_sophia.sophia``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from pytorch_optimizer import SAM, SophiaH
from torch import Tensor
from torch.optim import AdamW, Optimizer

# Small beside weights of about 0.02, and large enough that gradients differ by more than float32
# rounds them.
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
    """Sophia-H (Liu et al., 2023) with its paper's meaning of lr: the largest move in a step.

    The update is lr · clip(m / (rho · h), 1). The package writes this as lr' · clip(m / h, p) with
    lr' = lr / rho and p = rho. Its decay is multiplied by lr', so it is divided by that here.
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
    """SAM whose step computes the first gradient too, as the optimizers of torch do."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        if closure is None:
            raise ValueError("closure must be given: SAM evaluates the model twice a step")
        with torch.enable_grad():
            loss = closure()
        super().step(closure)
        return loss


class _Sophia(SophiaH):
    """Sophia-H with the Hessian's diagonal from differences of gradients.

    The package differentiates twice, which attention kernels do not support. It also accepts an
    estimate. This one is Hutchinson's: u · (g(θ + cu) - g(θ - cu)) / 2c with random signs u. The
    closure gives the gradients g, so they belong to the step's own batch. Clipping scales the
    gradients and the diagonal alike, so their ratio, the update, does not change.
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
        # The closure seeds torch's global generator, so that dropout is the same at both points.
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
