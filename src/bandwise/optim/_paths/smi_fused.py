"""SMI's filter in kernels, between the two transforms."""

import torch

from bandwise.optim._paths.smi_update import Entry, Update

_DEVICES = {"cuda"}
_DTYPES = {torch.float32, torch.bfloat16, torch.float16}
# The kernels count the parts of complex numbers in 32 bits.
_LIMIT = 1 << 30


def takes(entry: Entry) -> bool:
    """Whether the kernels can take an entry. They make a mask each time."""
    return (
        entry.grad.device.type in _DEVICES
        and {entry.grad.dtype, entry.history.dtype} <= _DTYPES
        and entry.grad.is_contiguous()
        and entry.grad.numel() < _LIMIT
        and entry.mask is None
    )


def step(entries: list[Entry], update: Update) -> None:
    """Filter gradients of one shape and dtype on one device.

    Raises:
        ImportError: Triton is not installed.
    """
    from bandwise.optim._paths import smi_triton

    # Kernels run on the current device, wherever their tensors are.
    with torch.cuda.device_of(entries[0].grad):  # type: ignore[no-untyped-call]
        smi_triton.step(entries, update)
