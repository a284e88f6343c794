"""What all paths through NSF's step share: their arguments, and the norm of an update."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor

Scale: TypeAlias = Literal["adam", "sgd", "none"]
State: TypeAlias = dict[str, Any]
# Kernels cut powers of d off at 2 to this, so that single precision holds their products.
MOST = 100.0


class Entry(NamedTuple):
    """One parameter's part of a step. Paths write theta, m and v in place.

    Attributes:
        param: the parameter. It may be complex, and it may be sharded over devices.
        theta: its values as real numbers: of a sharded parameter, the shard on this device.
        g: its gradient, laid out like theta.
        m: its first moment, laid out like theta.
        v: its second moment, laid out like theta.
        t: the number of its steps, this one included.
    """

    param: Tensor
    theta: Tensor
    g: Tensor
    m: Tensor
    v: Tensor
    t: float

    @classmethod
    def of(cls, param: Tensor, state: State) -> Entry:
        """The entry of a parameter that has a gradient; ``state["step"]`` counts this step."""
        moments = state["exp_avg"], state["exp_avg_sq"]
        if is_sharded(param):
            from bandwise.optim._paths import sharding

            sharding.aligned(param)
            tensors = [sharding.local(x) for x in (param, cast(Tensor, param.grad), *moments)]
        else:
            tensors = [param, cast(Tensor, param.grad), *moments]
        # A complex number counts as two real ones, as in AdamW.
        theta, g, m, v = (torch.view_as_real(x) if x.is_complex() else x for x in tensors)
        return cls(param, theta, g, m, v, state["step"].item())

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """Of theta, g, m and v. The state is narrower than its parameter if the model was cast."""
        return self.theta.dtype, self.g.dtype, self.m.dtype, self.v.dtype

    @property
    def numel(self) -> int:
        """How many real numbers the parameter has, on all devices together."""
        return self.param.numel() * (2 if self.param.is_complex() else 1)


class Update(NamedTuple):
    """The numbers of the equations in one step. All parameters of a group share them.

    Attributes:
        lr: the learning rate.
        beta1: the decay of the first moment.
        beta2: the decay of the second moment.
        eps: ε.
        weight_decay: λ.
        p: the exponent at this step.
        scale: whose length the update takes.
        decoupled_weight_decay: whether the decay acts on θ, or joins the gradient.
        maximize: whether the step goes up.
    """

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    p: float
    scale: Scale
    decoupled_weight_decay: bool
    maximize: bool

    @property
    def grafts(self) -> bool:
        """Whether u takes another's length. At p = 1/2 u_p has Adam's, so u is m̂ / (v̂^p + ε)."""
        return self.scale == "sgd" or (self.scale == "adam" and self.p != 0.5)

    @property
    def power(self) -> float:
        """Where the step grafts, 1 - 2p: u_p is u_1/2 times this power of d. Else p itself."""
        return 1 - 2 * self.p if self.grafts else self.p

    @property
    def shrink(self) -> float:
        """The factor of decoupled weight decay on a parameter."""
        return 1 - self.lr * self.weight_decay if self.decoupled_weight_decay else 1.0

    @property
    def coupled(self) -> float:
        """The factor of θ in the gradient."""
        return 0.0 if self.decoupled_weight_decay else self.weight_decay

    @property
    def numbers(self) -> list[float]:
        """What kernels read: beta1, gain1, beta2, gain2, eps, power, shrink, coupled.

        gain1 is 1 - beta1, or its negative to maximise. gain2 is 1 - beta2. Both are computed
        here, as single precision would round them.
        """
        sign = -1 if self.maximize else 1
        moments = [self.beta1, sign * (1 - self.beta1), self.beta2, 1 - self.beta2]
        return [*moments, self.eps, self.power, self.shrink, sign * self.coupled]

    def root(self, t: float) -> float:
        """The factor from √v to √v̂ at a parameter's step t."""
        return 1 / math.sqrt(1 - math.pow(self.beta2, t))

    def rate(self, t: float) -> float:
        """The factor from m to the change of θ at a parameter's step t, at p = 0."""
        return -self.lr / (1 - math.pow(self.beta1, t))


def is_sharded(param: Tensor) -> bool:
    """Whether a parameter is a ``DTensor``, without an import of ``torch.distributed``."""
    return hasattr(param, "device_mesh")


def norms(entries: list[Entry], *lists: list[Tensor]) -> list[list[Tensor]]:
    """The norms of tensors in lists that have one tensor an entry.

    Where the parameter is sharded, the norm is that of all shards together. All norms take one
    exchange between processes.
    """
    lengths = list(torch._foreach_norm([x for some in lists for x in some]))
    if any(is_sharded(entry.param) for entry in entries):
        from bandwise.optim._paths import sharding

        sharding.sum_lengths(lengths, [entry.param for _ in lists for entry in entries])
    return [lengths[i : i + len(entries)] for i in range(0, len(lengths), len(entries))]


def norm(entry: Entry, x: Tensor) -> Tensor:
    """The norm of one tensor, see ``norms``."""
    return norms([entry], [x])[0][0]


def ratio(wanted: Tensor, length: Tensor) -> Tensor:
    """The factor that gives an update the wanted length; 0 for an update of length 0."""
    return torch.where(length == 0, 0, wanted / length)
