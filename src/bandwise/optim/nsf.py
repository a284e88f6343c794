"""Natural Spectral Fusion (NSF): Adam's second moment raised to a power of either sign, cycled.

"Natural Spectral Fusion: p-Exponent Cyclic Scheduling and Early Decision-Boundary Alignment in
First-Order Optimization", arXiv 2509.04713, 2025. Only its abstract and a summary were at hand:
the update rule below, the scales above all, is our reading of them.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, Literal, TypeAlias, cast, get_args, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from bandwise.optim import _checks, schedules
from bandwise.optim import _state as _checkpoint
from bandwise.optim._paths import nsf_fused as kernels
from bandwise.optim.schedules import Schedule

Scale = Literal["adam", "sgd", "none"]
Group: TypeAlias = dict[str, Any]
State: TypeAlias = dict[str, Tensor]


class NSF(Optimizer):
    """Adam with the second moment to the power of p, which may be negative and may change.

    With Adam's bias-corrected moments m̂ and v̂, and d = √v̂ + ε, per parameter tensor:

        u_p = m̂ · d^(-2p)
        u   = u_p · ‖u_1/2‖ / ‖u_p‖                 scale "adam"
        θ   ← θ - lr · weight_decay · θ - lr · u

    p = 1/2 is AdamW and p = 0 momentum SGD, both with decoupled decay; p > 1/2 adapts more than
    Adam does, p < 0 enlarges the steps of coordinates whose gradients are large. In the paper's
    terms p > 0 favours low frequencies and p < 0 high ones, a parameter's frequency being how fast
    its gradient changes over time.

    The paper keeps the learning rate as it is. With the bare formula the weights hardly move for
    p <= 0 at Adam's learning rates, since d is small, so by default every p takes the length of
    Adam's step. This scale is part of our reading of the paper.

    ``p``, like the other arguments, may differ by parameter group and may be changed in
    ``param_groups`` at any time.

    Args:
        params: parameters, or dicts that define parameter groups.
        lr: learning rate, a number or a tensor of one element.
        betas: decays of the first and second moment, each in [0, 1).
        eps: added to √v̂; not negative.
        weight_decay: decoupled weight decay, as in AdamW; not negative.
        p: the exponent, a number or a schedule, within [-3, 3]. The default is what did best in
            our studies (``docs/claims.md``); ``Cyclic(0.5, -0.25, period=200)`` is a cycle between
            Adam and a negative exponent, as the paper describes, with values of ours.
        scale: whose step length each tensor takes: ``"adam"``'s, momentum ``"sgd"``'s
            (‖m̂‖), or ``"none"``: the bare u_p.
        maximize: go up instead of down.
        total_steps: the number of steps of the training, for a ``p`` of ``Linear`` or ``Cosine``.
        foreach: whether tensors are updated together by the fast path (``None``, ``True``) or one
            by one as the equations say, in double precision (``False``, and whenever ``|p|`` > 1
            or ``eps`` is 0). The results differ by rounding.
        fused: whether the fast path computes every value where it reads it, in kernels that are
            compiled at the first step: by a C++ compiler on a CPU, by Triton on a CUDA GPU. Two
            thirds of the time on a CPU for large tensors; small ones, and those that are not
            contiguous, stay with ``foreach``.

    ``state[param]`` holds ``step``, ``exp_avg`` and ``exp_avg_sq``, as in AdamW. A group's ``step``
    counts the optimizer's steps, which ``p`` follows.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: an argument out of range.
        RuntimeError: at ``step``, for a sparse gradient.

    Examples:
        >>> opt = NSF(model.parameters(), lr=1e-3)
        >>> cycled = NSF(model.parameters(), lr=1e-3, p=Cyclic(0.5, -0.25, period=200))
        >>> loss.backward()
        >>> opt.step()
        >>> opt.zero_grad()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        p: float | Schedule = 0.7,
        scale: Scale = "adam",
        maximize: bool = False,
        total_steps: int | None = None,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "p": p,
            "scale": scale,
            "maximize": maximize,
            "total_steps": total_steps,
            "foreach": foreach,
            "fused": fused,
        }
        _check_group(defaults)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: Group) -> None:
        """Add a group; its ``p`` goes on from the step that training has come to."""
        _checks.group(param_group)
        step = max((group["step"] for group in self.param_groups), default=0)
        complete = {**self.defaults, "step": step, **param_group}
        _check_group(complete)
        super().add_param_group(complete)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch._compile._disable_dynamo  # torch.compiler.disable would import all of dynamo
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step.

        In what ``torch.compile`` compiles the step stays as it is: torch 2.13 makes another step of
        it. With ``fused`` it has compiled kernels of its own.

        Args:
            closure: evaluates the model again and returns the loss.
        """
        _checks.not_captured("NSF")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            _check_group(group)
            for param in group["params"]:
                if param.grad is not None and param.grad.layout != torch.strided:
                    raise RuntimeError(
                        "NSF does not support sparse gradients: use a dense one "
                        f"(sparse=False in Embedding); shape {tuple(param.shape)}"
                    )
                if param.grad is not None and hasattr(param, "device_mesh"):
                    from bandwise.optim._paths import sharding as _sharded

                    _sharded.aligned(param)
        for group in self.param_groups:
            group["step"] += 1
            p = schedules.value_at(group["p"], group["step"], group["total_steps"])
            params = [param for param in group["params"] if param.grad is not None]
            if not _quick(group, p):
                for param in params:
                    _single_tensor(param, self._state(param), group, p)
                continue
            fused = [param for param in params if _fusable(param, self._state(param), group, p)]
            for alike in _alike(fused):
                _fused_tensors(alike, [self._state(param) for param in alike], group, p)
            taken = set(fused)
            for alike in _alike([param for param in params if param not in taken]):
                _multi_tensor(alike, [self._state(param) for param in alike], group, p)
        return loss

    def _state(self, param: Tensor) -> State:
        state = cast(State, self.state[param])
        if not state:
            state["step"] = torch.tensor(0.0, device="cpu")
            state["exp_avg"] = torch.zeros_like(param, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(param, memory_format=torch.preserve_format)
        return state

    def state_dict(self) -> dict[str, Any]:
        """As ``torch.optim.Optimizer.state_dict``; schedules stand in it as plain data."""
        # Hooks see what will be saved.
        with self.register_state_dict_post_hook(_made_plain, prepend=True):
            return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned.

        Raises:
            ValueError: if it does not fit; then nothing has changed.
        """
        # After the hooks of the user, which may make it fit.
        with self.register_load_state_dict_pre_hook(_made_loadable):
            super().load_state_dict(state_dict)
        # torch sends it to the device where a group is fused; here it is read at every step.
        for state in self.state.values():
            state["step"] = state["step"].cpu()


def _single_tensor(param: Tensor, state: State, group: Group, p: float) -> None:
    """One step of one tensor, as the equations say, in double precision: it holds powers of d."""
    lr, eps, scale = float(group["lr"]), group["eps"], group["scale"]
    beta1, beta2 = group["betas"]

    state["step"] += 1
    t = state["step"].item()
    stored = _real(param, cast(Tensor, param.grad), state["exp_avg"], state["exp_avg_sq"])
    theta, g, m, v = (x.double() for x in stored)
    if group["maximize"]:
        g = -g
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g

    m_hat = m / (1 - beta1**t)
    d = (v / (1 - beta2**t)).sqrt() + eps
    u = _direction(m_hat, d, p)
    if scale == "adam" and p != 0.5:  # where it has that length already
        u = u * _ratio(*_lengths([_direction(m_hat, d, 0.5), u], [param, param]))
    elif scale == "sgd":
        u = u * _ratio(*_lengths([m_hat, u], [param, param]))
    theta = theta - lr * group["weight_decay"] * theta - lr * u

    for kept, new in zip(stored, (theta, None, m, v), strict=True):
        if new is not None:
            kept.copy_(new.view(kept.shape))


def _direction(m_hat: Tensor, d: Tensor, p: float) -> Tensor:
    """u_p; 0 where there is no momentum, though d be 0 too, and where v overflowed, as in Adam."""
    return torch.where((m_hat == 0) | (m_hat / d == 0), 0, m_hat * d ** (-2 * p))


def _lengths(tensors: list[Tensor], params: list[Tensor]) -> list[Tensor]:
    """The norms of what is as large as the parameters, of sharded ones over all their parts."""
    lengths = list(torch._foreach_norm(tensors))
    if any(hasattr(param, "device_mesh") for param in params):
        from bandwise.optim._paths import sharding as _sharded

        _sharded.sum_lengths(lengths, params)
    return lengths


def _ratio(wanted: Tensor, length: Tensor) -> Tensor:
    """The factor from a length to the one wanted; 0 where there is none."""
    return torch.where(length == 0, 0, wanted / length)


def _quick(group: Group, p: float) -> bool:
    """Whether single precision can hold what ``_multi_tensor`` computes."""
    return group["foreach"] is not False and abs(p) <= 1 and group["eps"] > 0


def _multi_tensor(params: list[Tensor], states: list[State], group: Group, p: float) -> None:
    """``_single_tensor`` for many tensors of one dtype on one device, in single precision."""
    lr, scale = float(group["lr"]), group["scale"]
    beta1, beta2 = group["betas"]

    torch._foreach_add_([state["step"] for state in states], 1)
    steps = [state["step"].item() for state in states]
    stored = [
        _real(param, cast(Tensor, param.grad), state["exp_avg"], state["exp_avg_sq"])
        for param, state in zip(params, states, strict=True)
    ]
    # 16 bits hold neither eps nor the small steps of a moving average. State may be narrower than
    # its parameter, where the model was cast after a step.
    dtype = functools.reduce(torch.promote_types, {x.dtype for x in stored[0]}, torch.float32)
    theta, g, m, v = ([x.to(dtype) for x in some] for some in zip(*stored, strict=True))
    if group["maximize"]:
        g = list(torch._foreach_neg(g))
    torch._foreach_lerp_(m, g, 1 - beta1)
    torch._foreach_mul_(v, beta2)
    torch._foreach_addcmul_(v, g, g, 1 - beta2)

    d = list(torch._foreach_sqrt(v))
    torch._foreach_div_(d, [math.sqrt(1 - beta2**t) for t in steps])
    torch._foreach_add_(d, group["eps"])
    torch._foreach_mul_(theta, 1 - lr * group["weight_decay"])
    step_sizes = [-lr / (1 - beta1**t) for t in steps]
    if p == 0.5 and scale != "sgd":
        torch._foreach_addcdiv_(theta, m, d, step_sizes)
    else:
        u, factors = _scaled_directions(params, m, d, p, scale, group["eps"])
        torch._foreach_mul_(u, [f * s for f, s in zip(factors, step_sizes, strict=True)])
        torch._foreach_add_(theta, u)

    for new, kept in zip((theta, m, v), ([s[i] for s in stored] for i in (0, 2, 3)), strict=True):
        for changed, original in zip(new, kept, strict=True):
            if changed is not original:
                original.copy_(changed)


def _scaled_directions(
    params: list[Tensor], m: list[Tensor], d: list[Tensor], p: float, scale: Scale, eps: float
) -> tuple[list[Tensor], list[Tensor] | list[float]]:
    """u_p of every tensor up to a factor, and that factor. Overwrites d."""
    adam = list(torch._foreach_div(m, d))
    for x in d:  # where v overflowed adam is 0, and any number will do
        x.nan_to_num_(posinf=eps)
    if scale != "none":
        # d in units of its root mean square, which the scale divides out again: the powers that
        # matter stay within single precision.
        lengths = _lengths([*(adam if scale == "adam" else m), *d], [*params, *params])
        wanted, sizes = lengths[: len(d)], lengths[len(d) :]
        largest = math.log2(torch.finfo(d[0].dtype).max) / 2  # whose square fits
        numels = [param.numel() * (2 if param.is_complex() else 1) for param in params]
        units = [
            size.log2().clamp(max=largest) - math.log2(max(1, numel)) / 2
            for size, numel in zip(sizes, numels, strict=True)
        ]
    # u_p = u_1/2 d^(1 - 2p), by logarithms.
    torch._foreach_log2_(d)
    if scale != "none":
        torch._foreach_sub_(d, units)
    torch._foreach_mul_(d, 1 - 2 * p)
    for x in d:  # there is no _foreach_exp2_, and exp takes three times as long
        x.exp2_()
    torch._foreach_mul_(d, adam)
    if scale == "none":
        return d, [1.0] * len(d)
    lengths = _lengths(d, params)
    return d, [_ratio(a, b) for a, b in zip(wanted, lengths, strict=True)]


# More leaves a processor's cache between one operation and the next; on other devices, where
# calls cost more, it only takes memory.
_CPU_CHUNK_NUMEL = 1 << 18
_CHUNK_NUMEL = 1 << 25


def _alike(params: list[Tensor]) -> Iterator[list[Tensor]]:
    """The parameters by dtype and device, in chunks."""
    groups = defaultdict(list)
    for param in params:
        groups[param.dtype, param.device].append(param)
    for (_, device), members in groups.items():
        limit = _CPU_CHUNK_NUMEL if device.type == "cpu" else _CHUNK_NUMEL
        chunk: list[Tensor] = []
        numel = 0
        for param in members:
            numel += param.numel()
            if chunk and numel > limit:
                yield chunk
                chunk, numel = [], param.numel()
            chunk.append(param)
        yield chunk


# On a CPU a call of a kernel costs as much as the loops over so many coordinates.
_FUSED_NUMEL = 1 << 13


def _fusable(param: Tensor, state: State, group: Group, p: float) -> bool:
    """Whether ``_fused_tensors`` can and should take the tensor."""
    if not group["fused"] or param.device.type not in ("cpu", "cuda"):
        return False
    if hasattr(param, "device_mesh"):  # sums over ranks would have to come between the passes
        return False
    tensors = _real(param, cast(Tensor, param.grad), state["exp_avg"], state["exp_avg_sq"])
    return (
        param.numel() >= (_FUSED_NUMEL if param.device.type == "cpu" else 1)
        and all(x.is_contiguous() and x.dtype == tensors[0].dtype for x in tensors)
        and tensors[0].dtype in kernels.DTYPES
        # The smallest power of d is a normal number, with room for what it is multiplied by.
        and group["eps"] ** max(1 - 2 * p, 0) > 1e-30
    )


def _fused_tensors(params: list[Tensor], states: list[State], group: Group, p: float) -> None:
    """``_single_tensor`` for many tensors, every value computed where it is read."""
    lr, (beta1, beta2) = float(group["lr"]), group["betas"]
    torch._foreach_add_([state["step"] for state in states], 1)
    steps = [state["step"].item() for state in states]
    update = kernels.Update(
        beta1=beta1,
        gain1=beta1 - 1 if group["maximize"] else 1 - beta1,
        beta2=beta2,
        gain2=1 - beta2,
        eps=group["eps"],
        power=1 - 2 * p,
        shrink=1 - lr * group["weight_decay"],
        like_adam=group["scale"] == "adam",
        scaled=group["scale"] != "none",
    )
    kernels.step(
        [
            _real(param.detach(), cast(Tensor, param.grad), state["exp_avg"], state["exp_avg_sq"])
            for param, state in zip(params, states, strict=True)
        ],
        roots=[1 / math.sqrt(1 - beta2**t) for t in steps],
        rates=[-lr / (1 - beta1**t) for t in steps],
        update=update,
    )


def _real(theta: Tensor, g: Tensor, m: Tensor, v: Tensor) -> kernels.Tensors:
    """Real and imaginary parts as coordinates of their own, as in AdamW; of what is sharded, the
    parts that lie here."""
    if hasattr(theta, "device_mesh"):
        from bandwise.optim._paths import sharding as _sharded

        theta, g, m, v = (_sharded.local(x) for x in (theta, g, m, v))
    theta, g, m, v = (torch.view_as_real(x) if x.is_complex() else x for x in (theta, g, m, v))
    return theta, g, m, v


def _check_group(group: Group) -> None:
    """Raise unless a complete group's settings are of the right types and ranges."""
    lr, betas = group["lr"], group["betas"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"lr must be a number or a tensor of one element, got {lr}")
    _checks.number("lr", lr.item() if isinstance(lr, Tensor) else lr, low=0)
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise TypeError(f"betas must be a pair of numbers, got {betas!r}")
    _checks.number("betas[0]", betas[0], low=0, below=1)
    _checks.number("betas[1]", betas[1], low=0, below=1)
    _checks.number("eps", group["eps"], low=0)
    _checks.number("weight_decay", group["weight_decay"], low=0)
    # Powers beyond the sixth leave even double precision.
    schedules.check("p", group["p"], group["total_steps"], low=-3, high=3)
    _checks.one_of("scale", group["scale"], get_args(Scale))
    _checks.flag("maximize", group["maximize"])
    _checks.path(group["foreach"], group["fused"])


def _made_plain(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    return {**state_dict, "param_groups": _checkpoint.plain(state_dict["param_groups"])}


# What a group of an older state_dict lacks, and what it meant.
_LATER_SETTINGS = {"fused": None}


def _made_loadable(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    groups, state = _checkpoint.parts(state_dict)
    groups = [{**_LATER_SETTINGS, **group} for group in groups]
    _check_fit(groups, state, _checkpoint.matched(groups, optimizer.param_groups))
    # torch takes the saved tensors as they are; two optimizers would share them.
    return {**state_dict, "state": deepcopy(state), "param_groups": groups}


def _check_fit(
    groups: list[Group], state: dict[Any, State], matched: list[tuple[Any, Tensor]]
) -> None:
    """Raise unless a state_dict's groups and moments are NSF's and fit the parameters."""
    for group in groups:
        if not {"p", "scale", "step"} <= group.keys():
            raise ValueError(
                "the state_dict is not an NSF's: its groups lack p, scale or step; to go on from "
                "AdamW, start NSF anew"
            )
    _checkpoint.check_groups(groups, _check_group)
    for key, param in matched:
        entries = state.get(key, {})
        if entries and not {"step", "exp_avg", "exp_avg_sq"} <= entries.keys():
            raise ValueError(
                f"the state_dict's state of parameter {key} is not an NSF's: it needs step, "
                f"exp_avg and exp_avg_sq, and has {', '.join(map(str, entries))}"
            )
        if entries:
            _checkpoint.check_shape(key, "step", entries["step"], ())
            _checkpoint.check_shape(key, "exp_avg", entries["exp_avg"], tuple(param.shape))
            _checkpoint.check_shape(key, "exp_avg_sq", entries["exp_avg_sq"], tuple(param.shape))
