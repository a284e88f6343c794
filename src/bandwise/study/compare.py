"""Train a task with several optimizers and seeds, and say which differences are real."""

import json
import os
import platform
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import joblib
import torch
from rich.console import Console

from bandwise import tasks, userfile
from bandwise.files import read_json
from bandwise.optim import _checks
from bandwise.study.backends import BACKENDS
from bandwise.study.config import RunConfig, versions
from bandwise.study.errors import locked
from bandwise.study.paired import compare_runs
from bandwise.study.parallel import finish_runs
from bandwise.study.plan import configure
from bandwise.study.results import Results
from bandwise.study.run_files import CONFIG, RESULT


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
        jobs: runs at a time, each on one thread; by default one for each processor, one on a GPU,
            or as many as a cluster has room for.
        backend: where the runs are trained: ``"loky"``, processes of this machine, or the clusters
            ``"dask"`` (of the current ``Client`` or ``DASK_SCHEDULER_ADDRESS``) and ``"ray"`` (of
            ``ray.init`` or ``RAY_ADDRESS``), whose machines must share the file system. Where no
            cluster is named, one is started on this machine.
        device: where to train: ``"cpu"``, ``"cuda"``, …
        lens: whether a ``bandwise.Lens`` watches every run. It writes ``lens.jsonl`` in the run's
            folder and fills ``Run.lens``. Runs with and without a lens are kept apart.
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
    _checks.one_of("backend", backend, tuple(BACKENDS))
    device = str(device)
    made, configs = configure(task, optimizers, range(seeds), steps, device, task_options, lr, lens)
    out = default_folder(task) if out is None else Path(out)
    if jobs is None and backend == "loky":
        jobs = joblib.cpu_count() if torch.device(device).type == "cpu" else 1
    if jobs is not None:
        _checks.whole("jobs", jobs, low=1)
        jobs = min(jobs, len(configs))
    command = recorded_command(configs, out)
    console = console or Console(stderr=True)
    machine = {"system": platform.system(), "processors": str(os.cpu_count())}
    with locked(out):
        before = None
        with suppress(OSError, ValueError):
            before = Results.load(out)
        timed_alone = _timed_alone(configs, out, jobs, before)
        left = [c for c in configs if not (out / c.folder / RESULT).exists()]
        for note in _notes(configs, left, out, command, before):
            console.print(note, markup=False, highlight=False, soft_wrap=True)
        runs = finish_runs(configs, left, out, jobs, backend, console)
        names = dict.fromkeys(config.optimizer for config in configs)
        groups = [[run for run in runs if run.optimizer == name] for name in names]
        results = Results(
            task=made.name,
            metric=f"val_{made.metric}",
            direction=made.direction,
            steps=configs[0].recipe["steps"],
            seeds=list(range(seeds)),
            comparisons=compare_runs(groups, f"val_{made.metric}", made.direction),
            runs=[run for group in groups for run in group],
            command=command,
            versions=versions(device) | machine,
            timed_alone=timed_alone,
        )
        results.save(out)
    return results


def _timed_alone(
    configs: Sequence[RunConfig], out: Path, at_a_time: int | None, before: Results | None
) -> bool:
    """Whether the runs are trained one at a time, in one call: only then can times be compared."""
    if before and all((out / c.folder / RESULT).exists() for c in configs):
        known = {run.folder for run in before.runs}
        return before.timed_alone and known.issuperset(c.folder for c in configs)
    return at_a_time == 1 and not any((out / c.folder).exists() for c in configs)


def _notes(
    configs: list[RunConfig], left: list[RunConfig], out: Path, command: str, before: Results | None
) -> Iterator[str]:
    """What the user should know: a report is replaced, runs are kept, and why others are not."""
    others = {run.folder for run in before.runs} - {c.folder for c in configs} if before else ()
    if before and others and before.command != command:
        yield f"The report in {out} will be replaced. It is of: {before.command}"
    if len(left) < len(configs):
        yield f"{len(configs) - len(left)} of {len(configs)} runs are finished already."
    wanted = dict(_split(config.plain()) for config in left)
    changed: set[str] = set()
    older = 0
    for path in out.glob(f"runs/*/{RESULT}"):
        try:
            settings, held = _split(read_json(path.with_name(CONFIG)))
            now = wanted[settings]
        except (OSError, AttributeError, KeyError, TypeError, ValueError):
            continue  # of another study, or damaged
        different = [name for name in held | now if held.get(name) != now.get(name)]
        changed |= set(map(userfile.file_of, different))
        older += bool(different)
    if older:
        has, are = "has" if len(changed) == 1 else "have", "run is" if older == 1 else "runs are"
        yield f"{' and '.join(sorted(changed))} {has} changed: {older} older {are} left aside."


def _split(config: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """A configuration's settings, to look up, and its data and code."""
    code = config.pop("data") | config.pop("versions")
    return json.dumps(config, sort_keys=True, default=str), code


def recorded_command(configs: Sequence[RunConfig], out: Path) -> str:
    """What repeats the study from a shell."""
    one, names = configs[0], dict.fromkeys(config.optimizer for config in configs)
    words = ["bandwise", "compare", one.task, "--optimizers", ",".join(names)]
    words += ["--seeds", str(len({config.seed for config in configs}))]
    words += ["--steps", str(one.recipe["steps"]), "--lr", str(one.recipe["lr"])]
    words += ["--device", one.device] if one.device != "cpu" else []
    words += ["--out", str(out)]
    words += ["--lens"] if one.lens else []
    # What stands behind the dashes is the task's alone, whatever its options are called.
    words += ["--"] if one.task_options else []
    for name, text in tasks.options.write(tasks.find(one.task), one.task_options).items():
        words += [f"--{name}", text]
    return shlex.join(words)
