"""What a study's folder holds from earlier calls."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bandwise import userfile
from bandwise.files import read_json
from bandwise.study.config import RunConfig
from bandwise.study.results import Results
from bandwise.study.run_files import CONFIG, RESULT


def timed_alone(
    configs: Sequence[RunConfig], out: Path, at_a_time: int | None, before: Results | None
) -> bool:
    """Whether the runs are trained one at a time, in one call: only then can times be compared."""
    if before and all((out / c.folder / RESULT).exists() for c in configs):
        known = {run.folder for run in before.runs}
        return before.timed_alone and known.issuperset(c.folder for c in configs)
    return at_a_time == 1 and not any((out / c.folder).exists() for c in configs)


def notes(
    configs: Sequence[RunConfig],
    left: Sequence[RunConfig],
    out: Path,
    command: str,
    before: Results | None,
) -> Iterator[str]:
    """What the user should know: a report is replaced, runs are kept, and why others are not."""
    others = {run.folder for run in before.runs} - {c.folder for c in configs} if before else ()
    if before and others and before.command != command:
        yield f"The report in {out} will be replaced. It is of: {before.command}"
    if len(left) < len(configs):
        yield f"{len(configs) - len(left)} of {len(configs)} runs are finished already."
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
    has, are = "has" if len(changed) == 1 else "have", "run is" if older == 1 else "runs are"
    if older:
        yield f"{' and '.join(sorted(changed))} {has} changed: {older} older {are} left aside."


def _settings(config: Mapping[str, Any]) -> str:
    """A configuration without its code and data, to look up."""
    rest = {key: value for key, value in config.items() if key not in ("data", "versions")}
    return json.dumps(rest, sort_keys=True, default=str)
