"""What the optimizers of the studies share: a step around a closure, and Adam's moments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Stepping(Optimizer):
    """An optimizer whose subclass has only to say how its parameters move."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.move()
        return loss

    def move(self) -> None:
        """Move the parameters by their gradients."""
        raise NotImplementedError


def moments(
    state: dict[str, Any], grad: Tensor, betas: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Adam's bias-corrected moments m̂ and v̂ of a parameter, whose ``state`` they move on."""
    if not state:
        state["step"] = 0
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(grad), torch.zeros_like(grad)
    state["step"] += 1
    beta1, beta2 = betas
    m = state["exp_avg"].lerp_(grad, 1 - beta1)
    v = state["exp_avg_sq"].lerp_(grad.square(), 1 - beta2)
    return m / (1 - beta1 ** state["step"]), v / (1 - beta2 ** state["step"])
