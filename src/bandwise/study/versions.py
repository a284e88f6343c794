"""The versions and the machine that a result was made with."""

from __future__ import annotations

import importlib.metadata
import platform

import torch

import bandwise
from bandwise import userfile
from bandwise.study import spec


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


def code_versions(optimizer: str) -> dict[str, str]:
    """The versions that a run depends on: of bandwise, torch and the optimizer's package."""
    name = spec.parse(optimizer).base
    found = {"bandwise": bandwise.__version__, "torch": torch.__version__}
    if "." in name and not userfile.is_userfile(name) and not name.startswith("bandwise."):
        distributions = importlib.metadata.packages_distributions()
        for package in distributions.get(name.partition(".")[0], []):
            found[package] = importlib.metadata.version(package)
    return found
