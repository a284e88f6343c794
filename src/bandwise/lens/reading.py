"""The present values of an optimizer's schedules and filter, as numbers for any logger."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim import Optimizer

from bandwise.lens.quantities.spatial import energies
from bandwise.optim._spectrum import Grid
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
    optimizer = wrapped
    several = len(optimizer.param_groups) > 1
    found: dict[str, float] = {}
    for i, group in enumerate(optimizer.param_groups):
        figures = scheduled(optimizer, group, ahead=1)
        if isinstance(optimizer, SMI):
            if group["smi"]:
                figures |= _kept(optimizer, group)
            else:
                del figures["smi/alpha"]
        found |= {f"{name}/{i}" if several else name: value for name, value in figures.items()}
    return found


def scheduled(optimizer: Optimizer, group: dict[str, Any], ahead: int = 0) -> dict[str, float]:
    """``smi/alpha`` and ``nsf/p`` of a group at a step near the present one.

    Args:
        optimizer: SMI, NSF or SMI around NSF. Of any other the result is empty.
        group: one of its ``param_groups``.
        ahead: how many steps ahead: 1 for the coming step, 0 for the last one.
    """
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
        grid = Grid.of(grad, group["smi_layout"])
        M = grid.magnitude(grid.transform(grid.matrix(grad)))
        peak = M.amax().item()
        if not 0 < peak < math.inf:
            continue
        mask = optimizer.coming_mask(group, param, M)
        if mask is None:
            continue
        E = energies(M, grid)
        energy += E.sum().item() * peak**2 / grad.numel()
        kept += (E * mask).sum().item() * peak**2 / grad.numel()
    return {"smi/kept": kept / energy} if energy else {}
