"""NSF's step in kernels that compute every value where they read it.

One pass over memory is enough where nothing is grafted. Otherwise the first pass moves the moments
and measures the update, and the second pass applies it.
"""

import torch

from bandwise.optim._paths.nsf_update import Entry, Update, is_sharded

_DTYPES = {torch.float32, torch.float64, torch.bfloat16, torch.float16}
# On a CPU a call of a kernel costs as much as the loops over so many numbers.
_CPU_NUMEL = 1 << 13


def takes(entry: Entry, update: Update) -> bool:
    """Whether the kernels can take an entry, and are faster than ``nsf_foreach`` with it."""
    theta = entry.theta
    return (
        theta.device.type in ("cpu", "cuda")
        # The norms of shards would need an exchange between the two passes.
        and not is_sharded(entry.param)
        and theta.numel() >= (_CPU_NUMEL if theta.device.type == "cpu" else 1)
        and all(x.is_contiguous() for x in (theta, entry.g, entry.m, entry.v))
        and theta.dtype in _DTYPES
        and set(entry.dtypes) == {theta.dtype}
        # The smallest power of d is a normal number, with room for what it is multiplied by.
        and (not update.grafts or update.eps ** max(update.power, 0) > 1e-30)
    )


def step(entries: list[Entry], update: Update) -> None:
    """Take a step with entries of one dtype on one device.

    Raises:
        ImportError: on a GPU, if Triton is not installed.
        RuntimeError: on a CPU, if there is no C++ compiler.
    """
    if entries[0].theta.device.type == "cpu":
        from bandwise.optim._paths import nsf_cpu

        nsf_cpu.step(entries, update)
    else:
        from bandwise.optim._paths import nsf_triton

        # Kernels run on the current device, wherever their tensors are.
        with torch.cuda.device_of(entries[0].theta):  # type: ignore[no-untyped-call]
            nsf_triton.step(entries, update)
