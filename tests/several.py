"""Bases that evaluate several times a step."""

import torch


class Several(torch.optim.SGD):
    """Evaluates so many times a step, and steps by the last gradient. Notes all gradients."""

    def __init__(self, params, times, **settings):
        super().__init__(params, **settings)
        self.times, self.noted = times, []

    def step(self, closure=None):
        loss = None
        for _ in range(self.times if closure else 1):
            loss = closure() if closure else None
            params = [param for group in self.param_groups for param in group["params"]]
            self.noted.append([None if p.grad is None else p.grad.clone() for p in params])
        super().step()
        return loss


class Sharpness(torch.optim.SGD):
    """SAM: a gradient, a step uphill along it, the gradient there, back, a step by that one."""

    RHO = 0.05

    def step(self, closure):
        loss = closure()
        (param,) = self.param_groups[0]["params"]
        uphill = param.grad * (self.RHO / param.grad.norm())
        with torch.no_grad():
            param += uphill
        closure()
        with torch.no_grad():
            param -= uphill
        super().step()
        return loss
