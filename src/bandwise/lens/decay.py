"""The part of a step that is decoupled weight decay, for any optimizer.

Decoupled decay takes a share c of every parameter, whatever the gradient g is:

    θ ← (1 - c) θ - step(g)

Coupled decay joins the gradient, and the step answers to both. A trial tells them apart. A twin of
the optimizer, of the same class and with the same settings, steps with a few numbers of its own:

1. Twice with a gradient of zero, from θ and then from 3 θ. Decoupled decay takes the same share of
   every number in both steps. Coupled decay does not: an adaptive optimizer divides it by its own
   size, and momentum remembers it.
2. Once with g and once with -g. Steps are odd in g, so their mean must be (1 - c) θ again. It is
   not where the gradient scales the decay, as in a trust ratio.

In SGD without momentum, coupled and decoupled decay are the same step. It counts as decoupled.
"""

import copy
import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from bandwise.optim import _checks

Group = dict[str, Any]

# How a step is computed: for the twin, in the plain way, on the CPU and without autograd.
_PLAIN = dict.fromkeys(("foreach", "fused", "capturable", "differentiable"), False)
# What a share may be by rounding alone.
_ROUNDING = 1e-12


class DecayTrial:
    """Measures the decoupled decay of an optimizer's groups, and leaves the optimizer alone.

    Some optimizers cannot be made or stepped a second time. For these, the decay of groups with
    ``decoupled_weight_decay``, such as AdamW's and NSF's, counts as decoupled. If there is any
    decay, a warning says so once.

    Args:
        optimizer: any optimizer; for SMI, its base.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._twins: list[_Twin] = []
        self._failed = False

    def shares(self) -> list[float]:
        """For each group the share c that decoupled decay takes in the coming step."""
        groups = self._optimizer.param_groups
        if not self._failed:
            try:
                for group in groups[len(self._twins) :]:
                    self._twins.append(_Twin(self._optimizer, group))
                return [t.share(group) for t, group in zip(self._twins, groups, strict=True)]
            except Exception as error:
                self._failed = True
                if any(group.get("weight_decay") for group in groups):
                    kind = type(self._optimizer).__name__
                    assumed = any(map(self._assumed, groups))
                    _checks.warn(
                        f"the lens cannot try the weight decay of {kind} on numbers of its own "
                        f"({type(error).__name__}: {error}); the decay counts as "
                        f"{'decoupled' if assumed else 'a part of the gradients'}"
                    )
        return [self._assumed(group) for group in groups]

    def _assumed(self, group: Group) -> float:
        decoupled = group.get("decoupled_weight_decay")
        return float(group["lr"] * group["weight_decay"]) if decoupled else 0.0


class _Twin:
    """One group of an optimizer, with two small parameters of its own."""

    def __init__(self, optimizer: Optimizer, group: Group) -> None:
        kind = type(optimizer)
        several = distributed.is_available() and distributed.is_initialized()
        known = kind.__module__.startswith(("torch.optim.", "bandwise."))
        if several and distributed.get_world_size() > 1 and not known:
            raise RuntimeError("its step may wait for other processes")
        shape = (2,) * max((param.ndim for param in group["params"]), default=1)
        accepted = inspect.signature(kind).parameters
        defaults = {k: v for k, v in optimizer.defaults.items() if k in accepted}
        with _apart():
            count = torch.arange(2 ** len(shape), dtype=torch.float64).view(shape)
            self._start, self._gradient = 1 + count, 10 * torch.cos(count)
            self._params: list[Tensor] = [nn.Parameter(self._start.clone()) for _ in range(2)]
            own = {**_settings(group), "lr": 1.0, "params": self._params}
            self._optimizer = kind([own], **{**_settings(defaults), "lr": 1.0})
        # Hooks for all optimizers must not see its steps: torch wraps the method for them.
        method: Any = kind.step
        self._step = method.__wrapped__ if hasattr(method, "hooked") else method
        self._settings: Group = {}
        # Whether the decay is decoupled; None before there is any.
        self._decoupled: bool | None = None
        # The share per unit of learning rate; None if the share is not proportional to it.
        self._rate: float | None = None

    def share(self, group: Group) -> float:
        """The share c in a step with the group's settings; 0 for coupled decay."""
        lr, settings = float(group["lr"]), _settings(group)
        if settings != self._settings:
            self._settings, self._decoupled = settings, None
            one, half = self._trial(1.0), self._trial(0.5)
            self._rate = one if abs(one - 2 * half) <= 1e-3 * abs(one) else None
        return self._trial(lr) if self._rate is None else lr * self._rate

    def _trial(self, lr: float) -> float:
        if self._decoupled is False:
            return 0.0
        start, g = self._start, self._gradient
        with _apart():
            self._optimizer.state.clear()
            first = self._taken(lr, start, 0 * g)
            if self._decoupled is None and first.abs().max() > _ROUNDING:
                second = self._taken(lr, 3 * start, 0 * g)
                self._optimizer.state.clear()
                mean = self._taken(lr, start, g, -g)
                shares = torch.stack([first, second, mean])
                same = first.mean().expand_as(shares)
                self._decoupled = torch.allclose(shares, same, rtol=1e-3, atol=_ROUNDING)
        return first.mean().item() if self._decoupled else 0.0

    def _taken(self, lr: float, start: Tensor, *gradients: Tensor) -> Tensor:
        """The share that a step from ``start`` takes, on average over the gradients."""
        self._optimizer.param_groups[0].update({**_settings(self._settings), "lr": lr})
        for param, gradient in zip_longest(self._params, gradients):
            param.copy_(start)
            param.grad = None if gradient is None else gradient.clone()
        self._step(self._optimizer)
        return 1 - torch.stack(self._params[: len(gradients)]).mean(0) / start


@contextmanager
def _apart() -> Iterator[None]:
    """The twin leaves no trace: not in torch's generator, autograd or the user's warnings."""
    with (
        torch.no_grad(),
        torch.device("cpu"),
        torch.random.fork_rng(devices=[]),
        warnings.catch_warnings(action="ignore"),
    ):
        yield


def _settings(group: Group) -> Group:
    """A copy of a group's settings, but for those that change from step to step.

    What SMI adds to a group does not concern the base.
    """
    own = {
        key: value.detach().cpu().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for key, value in group.items()
        if key not in ("params", "param_names", "lr", "step") and not key.startswith("smi")
    }
    return own | {key: value for key, value in _PLAIN.items() if key in own}
