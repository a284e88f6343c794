"""NSF's step for many tensors at a time, in single precision: one call for each operation."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from bandwise.optim._paths.nsf_update import Entry, Update, norms, ratio


def takes(update: Update) -> bool:
    """Whether single precision holds the powers of d at this step."""
    return abs(update.p) <= 1 and update.eps > 0


def step(entries: list[Entry], update: Update) -> None:
    """Take a step with entries of the same dtypes on one device."""
    # 16 bits hold neither eps nor the small changes of a moving average.
    dtype = functools.reduce(torch.promote_types, entries[0].dtypes, torch.float32)
    theta = [entry.theta.to(dtype) for entry in entries]
    g = [entry.g.to(dtype) for entry in entries]
    m = [entry.m.to(dtype) for entry in entries]
    v = [entry.v.to(dtype) for entry in entries]
    if update.maximize:
        g = list(torch._foreach_neg(g))
    torch._foreach_lerp_(m, g, 1 - update.beta1)
    torch._foreach_mul_(v, update.beta2)
    torch._foreach_addcmul_(v, g, g, 1 - update.beta2)

    d = list(torch._foreach_sqrt(v))
    torch._foreach_mul_(d, [update.root(entry.t) for entry in entries])
    torch._foreach_add_(d, update.eps)
    torch._foreach_mul_(theta, update.shrink)
    rates = [update.rate(entry.t) for entry in entries]
    if update.power == 0 and not update.grafts:
        torch._foreach_addcdiv_(theta, m, d, rates)
    else:
        u, factors = _directions(entries, m, d, rates, update)
        torch._foreach_mul_(u, factors)
        torch._foreach_add_(theta, u)

    for entry, *changed in zip(entries, theta, m, v, strict=True):
        for kept, new in zip((entry.theta, entry.m, entry.v), changed, strict=True):
            if kept is not new:
                kept.copy_(new)


def _directions(
    entries: list[Entry], m: list[Tensor], d: list[Tensor], rates: list[float], update: Update
) -> tuple[list[Tensor], list[Tensor] | list[float]]:
    """Directions, and the factors that make them the changes of θ. Overwrites d."""
    adam = list(torch._foreach_div(m, d))
    for x in d:
        # Where v has overflowed, u_1/2 is 0, and any finite d will do.
        x.nan_to_num_(posinf=update.eps)
    if not update.grafts:
        return _times_power(adam, d, update.power), rates
    wanted, sizes = norms(entries, adam if update.scale == "adam" else m, d)
    # In units of its root mean square, the powers of d that matter stay within single precision.
    # Grafting divides the unit out again.
    units = [_log_rms(size, entry.numel) for size, entry in zip(sizes, entries, strict=True)]
    u = _times_power(adam, d, update.power, units)
    (lengths,) = norms(entries, u)
    return u, [ratio(a, b) * rate for a, b, rate in zip(wanted, lengths, rates, strict=True)]


def _times_power(
    x: list[Tensor], d: list[Tensor], power: float, units: list[Tensor] | None = None
) -> list[Tensor]:
    """The products x d^power, by logarithms, in d's memory.

    With units, d is divided by 2^unit first.
    """
    torch._foreach_log2_(d)
    if units is not None:
        torch._foreach_sub_(d, units)
    torch._foreach_mul_(d, power)
    for exponent in d:  # There is no _foreach_exp2_, and exp takes three times as long.
        exponent.exp2_()
    torch._foreach_mul_(d, x)
    return d


def _log_rms(length: Tensor, numel: int) -> Tensor:
    """The logarithm to base 2 of a tensor's root mean square, from its norm."""
    largest = math.log2(torch.finfo(length.dtype).max) / 2  # whose square is finite
    return length.log2().clamp(max=largest) - math.log2(max(1, numel)) / 2
