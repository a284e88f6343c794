"""The versions and the machine that a result was made with."""

from __future__ import annotations

import importlib.metadata
import platform

import torch

import bandwise


def versions(device: str | torch.device, *packages: str) -> dict[str, str]:
    """The versions of bandwise, torch, Python and ``packages``, and the processor or GPU."""
    kind = torch.device(device)
    found = {
        "bandwise": bandwise.__version__,
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "device": torch.cuda.get_device_name(kind) if kind.type == "cuda" else platform.machine(),
    }
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
