"""The versions and the machine that a result was made with."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from collections.abc import Mapping

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


def code_versions(task: str, optimizer: str) -> dict[str, str]:
    """The versions that a run depends on: of bandwise, torch and the packages that it names."""
    found = {"bandwise": bandwise.__version__, "torch": torch.__version__}
    for name in (task, spec.parse(optimizer).base):
        if "." in name and not userfile.is_userfile(name) and not name.startswith("bandwise."):
            for package in _packages().get(name.partition(".")[0], []):
                found[package] = importlib.metadata.version(package)
    return found


@functools.cache
def _packages() -> Mapping[str, list[str]]:
    """The installed packages by the modules that they hold. It takes a second to find them."""
    return importlib.metadata.packages_distributions()
