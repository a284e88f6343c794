"""Run the parts of a paper, and store the data of each as soon as it is done."""

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
from bandwise.study.config import versions
from bandwise.study.errors import locked
from papers.paper import Context, Paper, Part, ScaleName, one_of
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
    """Run the parts of a paper in their order.

    Each part's data is stored as ``out/results/PAPER-PART-SCALE.json`` as soon as it is done. A
    part that is stored with the same seeds and device does not run again. Stopped training
    continues where it stopped.

    Args:
        name: the paper, ``"smi"`` or ``"nsf"``.
        scale: ``"small"`` fits two processors and half an hour; ``"paper"`` is the paper's own.
        out: the folder for results and, in ``studies/``, the runs behind them.
        parts: the names of the parts to run; all by default.
        seeds: the number of seeds of every setting; by default each part's own number.
        jobs: the number of runs at a time; by default one per processor, or one on a GPU.
        device: the device to train on: ``"cpu"``, ``"cuda"``, …
        again: whether to run stored parts again. Their trained runs are kept.
        console: shows the progress; by default on standard error.

    Returns:
        The files of the parts.

    Raises:
        ImportError: a part needs a package of the ``papers`` extra that is not installed.
        ValueError: the paper, scale or part does not exist, or a stored part is damaged.
        StudyError: a run failed, or another command works on the same part. The same call tries
            again.
        KeyboardInterrupt: the user stopped it. The same call continues.
    """
    paper = papers.load(name)
    one_of("scale", scale, get_args(ScaleName))
    wanted = _wanted(paper, parts)
    for part in wanted:
        for module in part.needs:
            # Fail here, before the first parts train for hours.
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
        # The studies in it have locks of their own.
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
        one_of("parts", name, tuple(known))
    return [part for name, part in known.items() if name in names]


def _command(name: str, scale: str, part: Part, seeds: int | None, device: str) -> str:
    words = ["python", "-m", "papers", "reproduce", name, "--scale", scale, "--part", part.name]
    words += [] if seeds is None else ["--seeds", str(seeds)]
    words += [] if device == "cpu" else ["--device", device]
    return shlex.join(words)
