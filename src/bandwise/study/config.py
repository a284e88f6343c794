"""What a training run depends on, as plain data."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import bandwise
from bandwise import userfile
from bandwise.study import by_name, spec
from bandwise.study.errors import StudyError


@dataclass(frozen=True)
class RunConfig:
    """Everything that the result of a run depends on.

    Attributes:
        task: name, ``file.py:Class`` or ``package.Class``.
        task_options: keyword arguments of the task's constructor.
        data: hashes of the data and of the user's files.
        optimizer: the optimizer's text.
        seed: of weights, batches and dropout.
        recipe: the fields of ``bandwise.tasks.Recipe``.
        device: ``"cpu"``, ``"cuda"``, …
        versions: of bandwise, torch and the packages of the task and the optimizer.
        lens: whether a ``bandwise.Lens`` watches the run.
    """

    task: str
    task_options: dict[str, Any]
    data: dict[str, str]
    optimizer: str
    seed: int
    recipe: dict[str, Any]
    device: str
    versions: dict[str, str]
    lens: bool = False

    @property
    def label(self) -> str:
        """What messages call the run."""
        return f"{self.optimizer}, seed {self.seed}"

    def plain(self) -> dict[str, Any]:
        """The fields. ``lens`` is left out where there is none, so that old names stay the same."""
        return {key: value for key, value in asdict(self).items() if key != "lens" or value}

    def folder_name(self) -> str:
        """A readable name that no other configuration has."""
        text = json.dumps(self.plain(), sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        label = re.sub(r"[^A-Za-z0-9.=-]+", "-", self.optimizer).strip("-.")[:40]
        return f"{label}-seed{self.seed}-{digest}"

    def folder_in(self, out: Path) -> Path:
        """The run's folder in the folder of a study."""
        return out / "runs" / self.folder_name()

    def check_code(self) -> None:
        """Check that this process runs the code that the study began with.

        Two versions of the code must not share a table.

        Raises:
            StudyError: a file of the user's has changed, or a package has another version.
        """
        for name, sha256 in user_files(self.task, self.optimizer).items():
            if self.data.get(name) != sha256:
                raise StudyError(f"{userfile.file_of(name)} changed while the study ran")
        found = code_versions(self.task, self.optimizer)
        for package, wanted in self.versions.items():
            if found.get(package, "none") != wanted:
                raise StudyError(
                    f"the study was begun with {package} {wanted}, and this worker has "
                    f"{found.get(package, 'none')}"
                )


def user_files(task: str, optimizer: str) -> dict[str, str]:
    """The hashes of the user's files that a run depends on: its task's and its optimizer's."""
    files: dict[str, str] = {}
    for name in (task, spec.parse(optimizer).base):
        if userfile.is_userfile(name):
            files |= userfile.load(name).files
    return files


def code_versions(task: str, optimizer: str) -> dict[str, str]:
    """The versions that a run depends on: of bandwise, torch and the packages it names."""
    return {
        "bandwise": bandwise.__version__,
        "torch": torch.__version__,
        **by_name.package_version(task),
        **by_name.package_version(spec.parse(optimizer).base),
    }
