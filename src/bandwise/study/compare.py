"""Train a task with several optimizers and seeds, and say which differences are real."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import torch
from rich.console import Console

from bandwise import tasks
from bandwise.optim import _checks
from bandwise.study import earlier, spec
from bandwise.study.backends import BACKENDS
from bandwise.study.locks import locked
from bandwise.study.paired import compare_runs
from bandwise.study.parallel import finish_runs
from bandwise.study.plan import configure, read_optimizers
from bandwise.study.results import Results
from bandwise.study.run_files import RESULT
from bandwise.study.versions import versions
from bandwise.tasks import Recipe


def default_folder(task: str) -> Path:
    """Where a study of ``task`` is kept if the user does not say."""
    return Path("bandwise-runs") / task.rpartition(":")[2]


def compare(
    task: str,
    optimizers: str | Sequence[str],
    *,
    seeds: int = 3,
    steps: int | None = None,
    lr: float | None = None,
    out: str | Path | None = None,
    jobs: int | None = None,
    backend: str = "loky",
    device: str = "cpu",
    lens: bool = False,
    task_options: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> Results:
    """Train ``task`` with every optimizer and seed, and compare with the first optimizer named.

    With one seed every optimizer gets the same initial weights, batches and dropout. Finished runs
    in ``out`` are kept. Unfinished ones go on from their last checkpoint. Runs of any other
    configuration are left alone. The result does not depend on ``jobs`` and ``backend``. The global
    generators of Python, NumPy and torch are afterwards as they were.

    Args:
        task: a built-in task's name, ``path/to/file.py:MyTask`` or ``package.MyTask``.
        optimizers: their texts, as a sequence or separated by commas:
            ``"adamw,smi-adamw:q=0.5,nsf:p=cyclic(0.5,-0.25,200)"`` or ``"file.py:factory"``.
        seeds: how many; the seeds are 0, 1, …
        steps: optimizer steps in a run; by default the task's.
        lr: peak learning rate; by default the task's. ``NAME:lr=…`` sets one optimizer's own.
        out: the study's folder, by default ``bandwise-runs/TASK``. It gets ``results.json``,
            ``results.csv`` and a folder for each run in ``runs/``.
        jobs: runs at a time, each on one thread; by default as many as there are processors, or
            one on a GPU; on a cluster as many as it has room for.
        backend: joblib's name of where the runs are trained: ``"loky"``, processes of this machine,
            or the clusters ``"dask"`` and ``"ray"``, whose machines must share the file system.
            Dask's is the current ``Client``'s or ``DASK_SCHEDULER_ADDRESS``'s, ray's that of
            ``ray.init`` or ``RAY_ADDRESS``; where none is named, one is started on this machine.
        device: where to train: ``"cpu"``, ``"cuda"``, …
        lens: whether a ``bandwise.Lens`` watches every run. It writes ``lens.jsonl`` in the run's
            folder and fills ``Run.lens``. The training is the same and takes longer. Runs with and
            without a lens are kept apart.
        task_options: keyword arguments of the task.
        console: where progress is shown; by default standard error.

    Returns:
        Everything measured, as ``results.json`` holds it.

    Raises:
        TypeError: an argument is of the wrong type; nothing has been run.
        ValueError: an argument is wrong; nothing has been run.
        ModuleNotFoundError: the backend's package is not installed.
        StudyError: a run failed. The others went on; the same call tries again.
        KeyboardInterrupt: stopped; the same call goes on.
    """
    _checks.whole("seeds", seeds, low=1)
    _checks.flag("lens", lens)
    _checks.one_of("backend", backend, BACKENDS)
    device = str(device)
    specs = read_optimizers(optimizers)
    made, recipe, configs = configure(
        task,
        specs,
        range(seeds),
        steps=steps,
        lr=lr,
        device=device,
        lens=lens,
        task_options=task_options,
    )
    out = default_folder(task) if out is None else Path(out)
    jobs = _jobs(jobs, backend, device, len(configs))
    command = recorded_command(task, specs, seeds, recipe, out, device, lens, task_options)
    console = console or Console(stderr=True)

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    with locked(out):
        before = earlier.results_in(out)
        if before and earlier.is_of_another_study(before, configs, command):
            say(f"The report in {out} will be replaced. It is of: {before.command}")
        timed_alone = earlier.timed_alone(configs, out, jobs, before)
        left = [c for c in configs if not (c.folder_in(out) / RESULT).exists()]
        if len(left) < len(configs):
            say(f"{len(configs) - len(left)} of {len(configs)} runs are finished already.")
        if why := earlier.why_anew(left, out):
            say(why)
        done = finish_runs(configs, out, jobs=jobs, backend=backend, device=device, console=console)
        groups = [[run for run in done if run.optimizer == s.text] for s in specs]
        results = Results(
            task=made.name,
            metric=f"val_{made.metric}",
            direction=made.direction,
            steps=recipe.steps,
            seeds=list(range(seeds)),
            comparisons=compare_runs(groups, f"val_{made.metric}", made.direction),
            runs=[run for group in groups for run in group],
            command=command,
            versions=versions(device)
            | {"system": platform.system(), "processors": str(os.cpu_count())},
            timed_alone=timed_alone,
        )
        results.save(out)
    return results


def _jobs(jobs: int | None, backend: str, device: str, runs: int) -> int | None:
    """Runs at a time; ``None``: as many as a cluster has room for."""
    if jobs is None and backend != "loky":
        return None
    if jobs is None:
        return 1 if torch.device(device).type != "cpu" else min(joblib.cpu_count(), runs)
    _checks.whole("jobs", jobs, low=1)
    return min(jobs, runs)


def recorded_command(
    task: str,
    specs: Sequence[spec.Spec],
    seeds: int,
    recipe: Recipe,
    out: Path,
    device: str,
    lens: bool,
    task_options: Mapping[str, Any] | None,
) -> str:
    """What repeats the study from a shell."""
    options = {
        "--optimizers": ",".join(s.text for s in specs),
        "--seeds": seeds,
        "--steps": recipe.steps,
        "--lr": recipe.lr,
        **({"--device": device} if device != "cpu" else {}),
        "--out": out,
    }
    words = ["bandwise", "compare", task, *(str(w) for pair in options.items() for w in pair)]
    words += ["--lens"] if lens else []
    # What stands behind the dashes is the task's alone, whatever its options are called.
    words += ["--"] if task_options else []
    for name, text in tasks.write_options(task, task_options or {}).items():
        words += [f"--{name}", text]
    return shlex.join(words)
