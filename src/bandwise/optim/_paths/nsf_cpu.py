"""The kernels on a CPU: loops that ``torch.compile`` writes, one tensor at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bandwise.optim._paths.nsf_fused import MOST, Tensors, Update


def step(tensors: list[Tensors], roots: list[float], rates: list[float], update: Update) -> None:
    """See ``bandwise.optim._paths.nsf_fused.step``."""
    try:
        _step(tensors, roots, rates, update)
    except torch._dynamo.exc.BackendCompilerFailed as error:
        raise RuntimeError(
            "fused=True compiles loops for the CPU, and that failed: it needs a C++ compiler such "
            "as g++; install one, or leave fused out"
        ) from error


def _step(tensors: list[Tensors], roots: list[float], rates: list[float], update: Update) -> None:
    dtype = torch.promote_types(tensors[0][0].dtype, torch.float32)
    kept = torch.empty(0, dtype=dtype)
    if update.passes == 2:
        kept = torch.empty(max(theta.numel() for theta, *_ in tensors), dtype=dtype)
    for (theta, g, m, v), root, rate in zip(tensors, roots, rates, strict=True):
        theta, g, m, v = (x.view(-1) for x in (theta, g, m, v))
        # Numbers in a tensor: plain ones would be compiled in, and change at every step.
        numbers = torch.tensor([*update.numbers, root, rate], dtype=dtype)
        if update.passes == 1:
            compiled(_whole)(theta, g, m, v, numbers, update.power != 0)
        else:
            u = kept[: theta.numel()]
            adam, momentum, length = compiled(_measured)(g, m, v, u, numbers)
            wanted = adam if update.like_adam else momentum
            factor = torch.where(length == 0, 0, (wanted / length).sqrt()).to(dtype)
            compiled(_applied)(theta, u, factor, numbers)


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function in machine code, for tensors of any length."""
    return torch.compile(function, dynamic=True)


def _whole(theta: Tensor, g: Tensor, m: Tensor, v: Tensor, numbers: Tensor, powered: bool) -> None:
    """The step in one pass."""
    shrink, rate = numbers[6], numbers[8]
    _, adam, d = _moments(g, m, v, numbers)
    u = adam * _power(d, numbers) if powered else adam
    theta.copy_(theta.to(numbers.dtype) * shrink + rate * u)


def _measured(
    g: Tensor, m: Tensor, v: Tensor, u: Tensor, numbers: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Both moments and u_p; the squared lengths of u_1/2, of the momentum and of u_p."""
    new_m, adam, d = _moments(g, m, v, numbers)
    bare = adam * _power(d, numbers)
    u.copy_(bare)
    # Squares of powers leave single precision.
    return _squared_length(adam), _squared_length(new_m), _squared_length(bare)


def _squared_length(x: Tensor) -> Tensor:
    return x.double().square().sum()


def _applied(theta: Tensor, u: Tensor, factor: Tensor, numbers: Tensor) -> None:
    shrink, rate = numbers[6], numbers[8]
    theta.copy_(theta.to(numbers.dtype) * shrink + rate * factor * u)


def _moments(g: Tensor, m: Tensor, v: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """m, m / d and d, after both moments have moved."""
    beta1, gain1, beta2, gain2, eps, _, _, root, _ = numbers.unbind()
    # A number that is a tensor would be rounded to what it multiplies.
    g = g.to(numbers.dtype)
    new_m = beta1 * m.to(numbers.dtype) + gain1 * g
    new_v = beta2 * v.to(numbers.dtype) + gain2 * g * g
    m.copy_(new_m)
    v.copy_(new_v)
    d = new_v.sqrt() * root + eps
    return new_m, new_m / d, d


def _power(d: Tensor, numbers: Tensor) -> Tensor:
    # Of an overflowed d the logarithm must be finite, as 0 times inf is NaN.
    finite = d.clamp(max=torch.finfo(d.dtype).max)
    return (finite.log2() * numbers[5]).clamp(max=MOST).exp2()
