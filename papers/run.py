"""Run the parts of a paper, and store what each found at once."""

from __future__ import annotations

import datetime
import importlib.util
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from rich.console import Console

import papers
from bandwise.files import write_json
from bandwise.optim import _checks
from bandwise.study.locks import locked
from bandwise.study.versions import versions
from papers.paper import Context, Paper, Part, ScaleName
from papers.stored import read_part

_LIBRARIES = ("pytorch-optimizer", "numpy", "scipy")


def reproduce(
    name: str,
    scale: ScaleName = "small",
    out: Path = Path("bandwise-runs/papers"),
    *,
    parts: Iterable[str] | None = None,
    seeds: int | None = None,
    jobs: int | None = None,
    device: str = "cpu",
    again: bool = False,
    console: Console | None = None,
) -> list[Path]:
    """Run the parts of a paper in order.

    Each part's data is stored as ``out/results/PAPER-PART-SCALE.json`` as soon as it is done. A
    part that is stored, of the same seeds and device, is not run again. Training goes on from where
    it was stopped.

    Args:
        name: of the paper, ``"smi"`` or ``"nsf"``.
        scale: ``"small"`` fits two processors and half an hour; ``"paper"`` is the paper's own.
        out: folder for results and, in ``studies/``, the runs behind them.
        parts: names of the parts to run; all by default.
        seeds: of every setting; by default each part's own number.
        jobs: runs at a time, by default one a processor, or one on a GPU.
        device: where to run: ``"cpu"``, ``"cuda"``, …
        again: also take stored parts anew. What their studies have trained is kept.
        console: where progress is shown; by default standard error.

    Returns:
        The files of the parts asked for.

    Raises:
        ImportError: a package of the ``papers`` extra that a part needs is not installed.
        ValueError: there is no such paper, scale or part, or a stored one is damaged.
        StudyError: a run failed, or another command is at the same part. The same call tries again.
        KeyboardInterrupt: stopped; the same call goes on.
    """
    paper = papers.load(name)
    _checks.one_of("scale", scale, get_args(ScaleName))
    if seeds is not None:
        _checks.whole("seeds", seeds, low=1)
    wanted = _wanted(paper, parts)
    for part in wanted:
        for module in part.needs:
            # Before the hours of the parts that come first.
            if importlib.util.find_spec(module) is None:
                raise ImportError(
                    f"the part {part.name!r} needs the package {module!r}: "
                    "pip install 'bandwise[papers]'"
                )
    console = console or Console(stderr=True)
    (out / "results").mkdir(parents=True, exist_ok=True)
    settings = {"seeds": seeds, "device": device}
    paths = []
    for number, part in enumerate(wanted, 1):
        path = out / "results" / f"{name}-{part.name}-{scale}.json"
        paths.append(path)
        heading = f"{name}, part {number} of {len(wanted)}: {part.title}"
        if not again and path.exists() and read_part(path)["settings"] == settings:
            console.print(f"{heading}: stored already in {path}", markup=False, highlight=False)
            continue
        console.print(heading, markup=False, highlight=False)
        folder = out / "studies" / f"{name}-{part.name}-{scale}"
        # Studies within have locks of their own.
        with locked(folder, ".part.lock"):
            data = part.run(Context(folder, scale, seeds, jobs, device, console))
            write_json(
                path,
                {
                    "paper": name,
                    "part": part.name,
                    "scale": scale,
                    "settings": settings,
                    "command": _command(name, scale, part, seeds, device),
                    "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                    "versions": versions(device, *_LIBRARIES),
                    "data": data,
                },
            )
    return paths


def _wanted(paper: Paper, parts: Iterable[str] | None) -> list[Part]:
    known = {part.name: part for part in paper.parts}
    names = list(known) if parts is None else list(parts)
    for name in names:
        _checks.one_of("parts", name, tuple(known))
    return [part for name, part in known.items() if name in names]


def _command(name: str, scale: str, part: Part, seeds: int | None, device: str) -> str:
    words = ["python", "-m", "papers", "reproduce", name, "--scale", scale, "--part", part.name]
    words += [] if seeds is None else ["--seeds", str(seeds)]
    words += [] if device == "cpu" else ["--device", device]
    return shlex.join(words)
