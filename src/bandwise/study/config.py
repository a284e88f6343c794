"""What a training run depends on, as plain data: settings, code, machine."""

import functools
import hashlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

import bandwise
from bandwise import userfile
from bandwise.study import spec
from bandwise.study.errors import StudyError


@dataclass(frozen=True)
class RunConfig:
    """Everything that the result of a run depends on: see the arguments of ``compare``."""

    task: str
    task_options: dict[str, Any]
    data: dict[str, str]  # hashes of the data and of the user's files
    optimizer: str
    seed: int
    recipe: dict[str, Any]  # the fields of ``bandwise.tasks.Recipe``
    device: str
    versions: dict[str, str]  # of bandwise, torch and the packages of task and optimizer
    lens: bool = False

    @property
    def label(self) -> str:
        """What messages call the run."""
        return f"{self.optimizer}, seed {self.seed}"

    @property
    def folder(self) -> str:
        """The run's folder in that of a study: a readable name that no other run has."""
        text = json.dumps(self.plain(), sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        label = re.sub(r"[^A-Za-z0-9.=-]+", "-", self.optimizer).strip("-.")[:40]
        return f"runs/{label}-seed{self.seed}-{digest}"

    def plain(self) -> dict[str, Any]:
        """The fields. ``lens`` is left out where there is none, so that old names stay the same."""
        return {key: value for key, value in asdict(self).items() if key != "lens" or value}

    def check_code(self) -> None:
        """Raise StudyError unless this process runs the code that the study began with."""
        for name, sha256 in user_files(self.task, self.optimizer).items():
            if self.data.get(name) != sha256:
                raise StudyError(f"{userfile.file_of(name)} changed while the study ran")
        found = code_versions(self.task, self.optimizer)
        for package, wanted in self.versions.items():
            here = found.get(package, "none")
            if here != wanted:
                raise StudyError(
                    f"the study was begun with {package} {wanted}, and this worker has {here}"
                )


def user_files(task: str, optimizer: str) -> dict[str, str]:
    """The hashes of the user's files that a run depends on: its task's and its optimizer's."""
    names = filter(userfile.is_userfile, (task, spec.parse(optimizer).base))
    return {path: sha256 for name in names for path, sha256 in userfile.load(name).files.items()}


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
