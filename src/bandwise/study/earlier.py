"""What a study's folder holds from earlier calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bandwise import userfile
from bandwise.files import read_json
from bandwise.study.config import RunConfig
from bandwise.study.results import Results
from bandwise.study.run_files import CONFIG, RESULT


def results_in(out: Path) -> Results | None:
    """The study that the folder's report is of; ``None`` if there is none that can be read."""
    try:
        return Results.load(out)
    except (OSError, ValueError):
        return None


def is_of_another_study(before: Results, configs: Sequence[RunConfig], command: str) -> bool:
    """Whether the results have another command, and runs that this study has not."""
    names = {config.folder_name() for config in configs}
    return before.command != command and not _run_names(before) <= names


def timed_alone(
    configs: Sequence[RunConfig], out: Path, at_a_time: int | None, before: Results | None
) -> bool:
    """Whether the times of a study's runs can be compared.

    They can if the runs are trained one at a time, in one call.
    """
    folders = [config.folder_in(out) for config in configs]
    if before and all((folder / RESULT).exists() for folder in folders):
        return before.timed_alone and {folder.name for folder in folders} <= _run_names(before)
    return at_a_time == 1 and not any(folder.exists() for folder in folders)


def why_anew(left: Sequence[RunConfig], out: Path) -> str:
    """Which code or data has changed since runs of the same settings were finished.

    Returns:
        A sentence; empty if there are no such runs.
    """
    wanted = {_settings(config.plain()): config.data | config.versions for config in left}
    changed: set[str] = set()
    older = 0
    for path in out.glob(f"runs/*/{CONFIG}"):
        try:
            config = read_json(path) if (path.parent / RESULT).exists() else {}
            held = config["data"] | config["versions"]
            now = wanted[_settings(config)]
        except (OSError, KeyError, TypeError, ValueError):
            continue  # of another study, or damaged
        different = {
            userfile.file_of(name) for name in held | now if held.get(name) != now.get(name)
        }
        if different:
            changed |= different
            older += 1
    if not older:
        return ""
    has, are = "has" if len(changed) == 1 else "have", "run is" if older == 1 else "runs are"
    return f"{' and '.join(sorted(changed))} {has} changed: {older} older {are} left aside."


def _settings(config: Mapping[str, Any]) -> str:
    """A configuration without its code and data, to look up."""
    rest = {key: value for key, value in config.items() if key not in ("data", "versions")}
    return json.dumps(rest, sort_keys=True, default=str)


def _run_names(results: Results) -> set[str]:
    return {Path(run.folder).name for run in results.runs}
