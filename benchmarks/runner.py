"""Measure all cases of a subject, and store each as soon as it is measured."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from bandwise.study.config import versions
from bandwise.study.errors import locked
from benchmarks import memory, nsf, smi, timing, training
from benchmarks.plan import FULL, QUICK, Extent, Plan, matrices
from benchmarks.results import Bench, Case, Footprint
from benchmarks.timing import clock_of, interleaved


class _Subject(NamedTuple):
    """The cases of a subject, and the function that measures its memory."""

    plans: Callable[[Extent, torch.device], Iterator[Plan]]
    memory: Callable[[Sequence[torch.Size], torch.device], list[Footprint]] | None = None


_SUBJECTS = {
    "smi": _Subject(smi.plans, memory.smi),
    "nsf": _Subject(nsf.plans, memory.nsf),
    "lens": _Subject(training.watched),
}
_LIBRARIES = ("pytorch-optimizer", "heavyball")


def run(
    subject: str = "all",
    out: Path = Path("bandwise-runs/bench"),
    *,
    device: str = "cpu",
    threads: int | None = None,
    quick: bool = False,
    extent: Extent | None = None,
    console: Console | None = None,
) -> Bench:
    """Run the benchmark and write ``bench.json`` into ``out``, anew after every case.

    Args:
        subject: ``"smi"``, ``"nsf"``, ``"lens"`` or ``"all"``.
        out: folder for the results.
        device: the device to measure on: ``"cpu"``, ``"cuda"``, …
        threads: the number of torch's threads on the CPU meanwhile; ``None`` keeps its number.
        quick: fewer sizes and rounds.
        extent: sizes and rounds in detail, instead of ``quick``.
        console: the console that shows the progress.

    Raises:
        ValueError: the subject does not exist.
        StudyError: another command works in ``out``.
    """
    choices = (*_SUBJECTS, "all")
    if subject not in choices:
        raise ValueError(f"subject must be one of {', '.join(choices)}, got {subject!r}")
    place = torch.device(device)
    extent = extent or (QUICK if quick else FULL)
    console = console or Console(stderr=True)
    subjects = list(_SUBJECTS) if subject == "all" else [subject]
    with timing.threads(threads), locked(out), _progress(console) as progress:
        plans = [plan for name in subjects for plan in _SUBJECTS[name].plans(extent, place)]
        results = Bench(_command(subject, device, threads, quick), _machine(place))
        line = progress.add_task("", total=len(plans))
        for plan in plans:
            progress.update(line, description=plan.title, refresh=True)
            try:
                case = _measured(plan, extent, place, each_round=progress.refresh)
            except (torch.OutOfMemoryError, MemoryError) as error:
                results.skipped[plan.title] = f"out of memory: {error}"
                said = "no memory for"
            else:
                results.cases.append(case)
                said = "measured"
            if place.type == "cuda":
                torch.cuda.empty_cache()
            results.save(out / "bench.json")
            progress.advance(line)
            progress.console.print(f"{said} {plan.title}", markup=False, highlight=False)
        for name in subjects:
            if weigh := _SUBJECTS[name].memory:
                results.memory.extend(weigh(matrices(extent.gpt), place))
        results.save(out / "bench.json")
    return results


def _measured(
    plan: Plan, extent: Extent, device: torch.device, each_round: Callable[[], object]
) -> Case:
    lineup = plan.build()
    rows, orders = interleaved(
        lineup.contenders,
        extent.rounds,
        clock_of(device),
        renew=lineup.renew,
        each_round=each_round,
    )
    return Case(
        plan.title,
        plan.parameters,
        rows,
        orders,
        plan.note,
        lineup.absent,
        plan.sweep,
        plan.finding,
        plan.added,
    )


def _progress(console: Console) -> Progress:
    """A bar that is drawn only between rounds. A thread that draws would disturb the timing."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        auto_refresh=False,
        transient=True,
    )


def _command(subject: str, device: str, threads: int | None, quick: bool) -> str:
    words = ["python", "-m", "benchmarks", subject, "--device", device]
    if threads is not None:
        words += ["--threads", str(threads)]
    if quick:
        words.append("--quick")
    return shlex.join(words)


def _machine(device: torch.device) -> dict[str, str]:
    return {
        "processor": _processor(),
        "processors": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "load before": f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown",
        "CUDA": torch.version.cuda or "none",
        "system": f"{platform.system()} {platform.machine()}",
        **versions(device, *_LIBRARIES),
    }


def _processor() -> str:
    """The processor's model. Python knows it on few systems."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
