"""What the optimizers are at, as numbers that any logger takes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim import Optimizer

from bandwise.lens.quantities.spatial import coming_mask, energies
from bandwise.optim import _spectrum as spectrum
from bandwise.optim import schedules
from bandwise.optim.nsf import NSF
from bandwise.optim.smi import SMI


@torch.no_grad()
def readings(optimizer: Optimizer) -> dict[str, float]:
    """``alpha``, ``p`` and the kept energy of the step that ``optimizer`` is about to take.

    To be called between ``backward`` and ``step``, after unscaling and clipping. The kept energy
    costs about a step of SMI: call it at the steps that are logged. Nothing is changed.

    - ``smi/alpha``: the part of the filtered gradient.
    - ``smi/kept``: the share of the gradients' energy, the sum of their squares, that the mask
      keeps. It is left out where there is no finite gradient to be filtered. Parameters whose
      filter processes share (``DTensor`` s, ``shard_work``) do not count: nothing is communicated.
    - ``nsf/p``: the exponent.

    With several parameter groups the names end in the group's number: ``smi/alpha/0``.

    Args:
        optimizer: SMI, NSF or SMI around NSF, bare or as Accelerate or Lightning wrap it. There is
            nothing to read of any other.

    Raises:
        TypeError: it is no optimizer.
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
    """``smi/alpha`` and ``nsf/p`` of a group, as its last step used them or one so many ahead."""
    values = {}
    if isinstance(optimizer, SMI):
        values["smi/alpha"] = schedules.value_at(
            group["smi_alpha"], group["smi_step"] + ahead, group["smi_total_steps"]
        )
        optimizer = optimizer.base
    if isinstance(optimizer, NSF):
        values["nsf/p"] = schedules.value_at(
            group["p"], group["step"] + ahead, group["total_steps"]
        )
    return values


def _kept(optimizer: SMI, group: dict[str, Any]) -> dict[str, float]:
    """``smi/kept`` of a group, if there is any energy."""
    energy = kept = 0.0
    for param in group["params"]:
        grad = param.grad
        if grad is None or param.ndim < max(group["smi_min_ndim"], 1) or not grad.numel():
            continue
        if grad.layout != torch.strided or hasattr(param, "device_mesh"):
            continue
        G = spectrum.matrix(grad)
        M = spectrum.magnitude(spectrum.transform(G), G)
        peak = M.amax().item()
        if not 0 < peak < math.inf:
            continue
        mask = coming_mask(M, G, group, optimizer.state.get(param, {}))
        if mask is None:
            continue
        E = energies(M, G)
        energy += E.sum().item() * peak**2 / G.numel()
        kept += (E * mask).sum().item() * peak**2 / G.numel()
    return {"smi/kept": kept / energy} if energy else {}
