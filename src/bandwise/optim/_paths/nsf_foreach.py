"""NSF's step for many tensors at a time, in single precision: one call for each operation."""

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
    if update.coupled:
        g = list(torch._foreach_add(g, theta, alpha=update.coupled))
    torch._foreach_lerp_(m, g, 1 - update.beta1)
    torch._foreach_mul_(v, update.beta2)
    torch._foreach_addcmul_(v, g, g, 1 - update.beta2)

    if update.shrink != 1:
        torch._foreach_mul_(theta, update.shrink)
    rates = [update.rate(entry.t) for entry in entries]
    if update.grafts:
        u, factors = _grafted(entries, m, _denominators(entries, v, update, 0.5), rates, update)
        torch._foreach_mul_(u, factors)
        torch._foreach_add_(theta, u)
    else:
        torch._foreach_addcdiv_(theta, m, _denominators(entries, v, update, update.p), rates)

    for entry, *changed in zip(entries, theta, m, v, strict=True):
        for kept, new in zip((entry.theta, entry.m, entry.v), changed, strict=True):
            if kept is not new:
                kept.copy_(new)


def _denominators(entries: list[Entry], v: list[Tensor], update: Update, p: float) -> list[Tensor]:
    """The denominators v̂^p + ε, which are d at p = 1/2."""
    powers = list(torch._foreach_sqrt(v) if p == 0.5 else torch._foreach_pow(v, p))
    if p <= 0:
        for power, x in zip(powers, v, strict=True):
            power.masked_fill_(x.isinf(), torch.inf)  # The update is 0 where v has overflowed.
    torch._foreach_mul_(powers, [update.root(entry.t) ** (2 * p) for entry in entries])
    torch._foreach_add_(powers, update.eps)
    return powers


def _grafted(
    entries: list[Entry], m: list[Tensor], d: list[Tensor], rates: list[float], update: Update
) -> tuple[list[Tensor], list[Tensor]]:
    """Directions, and the factors that make them the changes of θ. Overwrites d."""
    adam = list(torch._foreach_div(m, d))
    for x in d:
        # Where v has overflowed, u_1/2 is 0, and any finite d will do.
        x.nan_to_num_(posinf=update.eps)
    wanted, sizes = norms(entries, adam if update.scale == "adam" else m, d)
    # In units of its root mean square, the powers of d that matter stay within single precision.
    # Grafting divides the unit out again.
    units = [_log_rms(size, entry.numel) for size, entry in zip(sizes, entries, strict=True)]
    # d^(1 - 2p) by logarithms. There is no _foreach_exp2_, and exp takes three times as long.
    torch._foreach_log2_(d)
    torch._foreach_sub_(d, units)
    torch._foreach_mul_(d, update.power)
    for exponent in d:
        exponent.exp2_()
    torch._foreach_mul_(d, adam)
    (lengths,) = norms(entries, d)
    return d, [ratio(a, b) * rate for a, b, rate in zip(wanted, lengths, rates, strict=True)]


def _log_rms(length: Tensor, numel: int) -> Tensor:
    """The logarithm to base 2 of a tensor's root mean square, from its norm."""
    largest = math.log2(torch.finfo(length.dtype).max) / 2  # whose square is finite
    return length.log2().clamp(max=largest) - math.log2(max(1, numel)) / 2
