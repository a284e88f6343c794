"""The present values of an optimizer's schedules and filter, as numbers for any logger."""

import math
from typing import Any

import torch
from torch.optim import Optimizer

from bandwise.lens.quantities.spatial import energies, magnitudes
from bandwise.optim.nsf import NSF
from bandwise.optim.smi import SMI


@torch.no_grad()
def readings(optimizer: Optimizer) -> dict[str, float]:
    """``alpha``, ``p`` and the kept energy of the step that ``optimizer`` is about to take.

    Call it between ``backward`` and ``step``, after unscaling and clipping. The kept energy costs
    about a step of SMI, so call it only at the steps that are logged. Nothing is changed.

    - ``smi/alpha``: the part of the filtered gradient.
    - ``smi/kept``: the share of the gradients' energy, the sum of their squares, that the mask
      keeps. It is left out if no finite gradient is to be filtered. Parameters do not count if
      processes share their filter (``DTensor`` s, ``shard_work``): nothing is communicated.
    - ``nsf/p``: the exponent.

    With several parameter groups the names end in the group's number: ``smi/alpha/0``.

    Args:
        optimizer: SMI, NSF or SMI around NSF, bare or as Accelerate or Lightning wrap it. Of any
            other optimizer the result is empty.

    Raises:
        TypeError: ``optimizer`` is no optimizer.
    """
    wrapped = getattr(optimizer, "optimizer", optimizer)
    if not isinstance(wrapped, Optimizer):
        kind = type(optimizer).__name__
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {kind}")
    found: dict[str, float] = {}
    for i, group in enumerate(wrapped.param_groups):
        figures = scheduled(wrapped, group, ahead=1)
        if isinstance(wrapped, SMI):
            if group["smi"]:
                figures |= _kept(wrapped, group)
            else:
                del figures["smi/alpha"]
        end = f"/{i}" if len(wrapped.param_groups) > 1 else ""
        found |= {name + end: value for name, value in figures.items()}
    return found


def scheduled(optimizer: Optimizer, group: dict[str, Any], ahead: int = 0) -> dict[str, float]:
    """``smi/alpha`` and ``nsf/p`` of a group at its last step, or some steps ``ahead``."""
    values = {}
    if isinstance(optimizer, SMI):
        values["smi/alpha"] = optimizer.alpha(group, ahead)
        optimizer = optimizer.base
    if isinstance(optimizer, NSF):
        values["nsf/p"] = optimizer.exponent(group, ahead)
    return values


def _kept(optimizer: SMI, group: dict[str, Any]) -> dict[str, float]:
    """``smi/kept`` of a group, if there is any energy."""
    energy = kept = 0.0
    for param in group["params"]:
        grad = param.grad
        if grad is None or not optimizer.filters(group, param):
            continue
        if grad.layout != torch.strided or hasattr(param, "device_mesh"):
            continue
        grid, M = magnitudes(grad, group["smi_layout"])
        peak = M.amax().item()
        mask = optimizer.coming_mask(group, param, M) if 0 < peak < math.inf else None
        if mask is not None:
            E, unit = energies(M, grid), peak**2 / grad.numel()
            energy += E.sum().item() * unit
            kept += (E * mask).sum().item() * unit
    return {"smi/kept": kept / energy} if energy else {}
