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


def timed_alone(
    configs: Sequence[RunConfig], out: Path, at_a_time: int | None, before: Results | None
) -> bool:
    """Whether the runs are trained one at a time, in one call: only then can times be compared."""
    if before and all((out / c.folder / RESULT).exists() for c in configs):
        known = {run.folder for run in before.runs}
        return before.timed_alone and known.issuperset(c.folder for c in configs)
    return at_a_time == 1 and not any((out / c.folder).exists() for c in configs)


def why_anew(left: Sequence[RunConfig], out: Path) -> str:
    """A sentence on code or data that changed since runs of the same settings; empty if none."""
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
        different = [name for name in held | now if held.get(name) != now.get(name)]
        changed |= set(map(userfile.file_of, different))
        older += bool(different)
    if not older:
        return ""
    has, are = "has" if len(changed) == 1 else "have", "run is" if older == 1 else "runs are"
    return f"{' and '.join(sorted(changed))} {has} changed: {older} older {are} left aside."


def _settings(config: Mapping[str, Any]) -> str:
    """A configuration without its code and data, to look up."""
    rest = {key: value for key, value in config.items() if key not in ("data", "versions")}
    return json.dumps(rest, sort_keys=True, default=str)
