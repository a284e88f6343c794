"""NSF's kernels for a CPU: loops that ``torch.compile`` writes, for one tensor at a time."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bandwise.optim._paths.nsf_update import MOST, Entry, Update, ratio


def step(entries: list[Entry], update: Update) -> None:
    """See ``nsf_fused.step``."""
    try:
        _step(entries, update)
    except torch._dynamo.exc.BackendCompilerFailed as error:
        raise RuntimeError(
            "fused=True compiles loops for the CPU, and that failed: it needs a C++ compiler such "
            "as g++; install one, or leave fused out"
        ) from error


def _step(entries: list[Entry], update: Update) -> None:
    dtype = torch.promote_types(entries[0].theta.dtype, torch.float32)
    longest = max(entry.theta.numel() for entry in entries) if update.grafts else 0
    buffer = torch.empty(longest, dtype=dtype, device="cpu")
    for entry in entries:
        theta, g, m, v = (x.detach().view(-1) for x in (entry.theta, entry.g, entry.m, entry.v))
        # In a tensor, as a plain number would be compiled in, and these change at every step.
        own = torch.tensor(
            [*update.numbers, update.root(entry.t), update.rate(entry.t)], dtype=dtype, device="cpu"
        )
        decayed = theta if update.coupled else None
        if update.grafts:
            u = buffer[: theta.numel()]
            adam, momentum, length = compiled(_measured)(decayed, g, m, v, u, own)
            wanted = adam if update.scale == "adam" else momentum
            compiled(_applied)(theta, u, ratio(wanted, length).to(dtype), own)
        else:
            compiled(_whole)(theta, decayed, g, m, v, own, update.p != 0.5)


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function in machine code, for tensors of any length."""
    return torch.compile(function, dynamic=True)


def _whole(
    theta: Tensor,
    decayed: Tensor | None,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    numbers: Tensor,
    powered: bool,
) -> None:
    """The whole step, in one pass. ``decayed`` is θ where the decay joins the gradient."""
    eps, p, shrink, root, rate = numbers[4], numbers[5], numbers[6], numbers[8], numbers[9]
    new_m, new_v = _moments(decayed, g, m, v, numbers)
    if powered:
        # Where v has overflowed the update is 0.
        power = torch.where(new_v.isinf(), torch.inf, new_v**p * root ** (2 * p))
    else:
        power = new_v.sqrt() * root
    theta.copy_(theta.to(numbers.dtype) * shrink + rate * new_m / (power + eps))


def _measured(
    decayed: Tensor | None, g: Tensor, m: Tensor, v: Tensor, u: Tensor, numbers: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Move both moments and write u_p. Returns the norms of u_1/2, of the momentum and of u_p."""
    new_m, new_v = _moments(decayed, g, m, v, numbers)
    d = new_v.sqrt() * numbers[8] + numbers[4]
    adam = new_m / d
    # The logarithm must be finite where d has overflowed, as 0 times inf is NaN.
    finite = d.clamp(max=torch.finfo(d.dtype).max)
    bare = adam * (finite.log2() * numbers[5]).clamp(max=MOST).exp2()
    u.copy_(bare)
    return _norm(adam), _norm(new_m), _norm(bare)


def _norm(x: Tensor) -> Tensor:
    # Squares of powers leave single precision.
    return x.double().square().sum().sqrt()


def _applied(theta: Tensor, u: Tensor, factor: Tensor, numbers: Tensor) -> None:
    """Decay θ and add the update."""
    theta.copy_(theta.to(numbers.dtype) * numbers[6] + numbers[9] * factor * u)


def _moments(
    decayed: Tensor | None, g: Tensor, m: Tensor, v: Tensor, numbers: Tensor
) -> tuple[Tensor, Tensor]:
    """Move both moments, and return them before they are rounded."""
    beta1, gain1, beta2, gain2, *_ = numbers.unbind()
    # torch would round the numbers to the dtype of the tensors that they multiply.
    g = g.to(numbers.dtype)
    if decayed is not None:
        g = g + numbers[7] * decayed.to(numbers.dtype)
    new_m = beta1 * m.to(numbers.dtype) + gain1 * g
    new_v = beta2 * v.to(numbers.dtype) + gain2 * g * g
    m.copy_(new_m)
    v.copy_(new_v)
    return new_m, new_v
