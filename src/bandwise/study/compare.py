"""Train a task with several optimizers and seeds, and say which differences are real."""

from __future__ import annotations

import errno
import functools
import io
import json
import os
import pickle
import platform
import shlex
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import joblib
import torch
from rich.console import Console
from torch import nn

import bandwise
from bandwise import tasks, userfile
from bandwise.optim import _checks
from bandwise.study import optimizers as by_name
from bandwise.study import spec
from bandwise.study.backends import BACKENDS, workers
from bandwise.study.errors import DamagedRunError, StudyError
from bandwise.study.files import locked, read_json
from bandwise.study.paired import compare_runs
from bandwise.study.progress import StudyProgress
from bandwise.study.results import Results, Run
from bandwise.study.run import RESULT, RunConfig, read_run, train
from bandwise.study.versions import versions
from bandwise.tasks import Recipe, Task

# A full disk, quota or file, and a disk for reading only.
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


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
    found in ``out`` are kept, unfinished ones go on from their last checkpoint; runs of any other
    configuration are left alone. The result does not depend on ``jobs`` and ``backend``.

    Args:
        task: a built-in task's name, or ``path/to/file.py:MyTask``.
        optimizers: their texts, as a sequence or separated by commas:
            ``"adamw,smi-adamw:q=0.5,nsf:p=cyclic(0.5,-0.25,200)"`` or ``"file.py:factory"``.
        seeds: how many; the seeds are 0, 1, …
        steps: optimizer steps a run; by default the task's.
        lr: peak learning rate; by default the task's. ``NAME:lr=…`` sets one optimizer's own.
        out: the study's folder, by default ``bandwise-runs/TASK``. Gets ``results.json``,
            ``results.csv`` and a folder a run in ``runs/``.
        jobs: runs at a time, each on one thread; by default as many as there are processors, or
            one on a GPU; on a cluster as many as it has room for.
        backend: joblib's name of where the runs are trained: ``"loky"``, processes of this machine,
            or the clusters ``"dask"`` and ``"ray"``, whose machines must share the file system.
            Dask's is the current ``Client``'s or ``DASK_SCHEDULER_ADDRESS``'s, ray's that of
            ``ray.init`` or ``RAY_ADDRESS``; where none is named, one is started on this machine.
        device: where to train: ``"cpu"``, ``"cuda"``, …
        lens: whether every run is watched by a ``bandwise.Lens``, which writes
            ``lens.jsonl`` in its folder and fills ``Run.lens``. Its training is the same and
            takes longer. A run that was not watched is not taken for one that was.
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
    specs = _specs(optimizers)
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
    at_a_time = _jobs(jobs, backend, device, len(configs))
    command = _command(task, specs, seeds, recipe, out, device, lens, task_options)
    console = console or Console(stderr=True)
    with locked(out):
        before = _before(out)
        names = {config.folder_name() for config in configs}
        if before and before.command != command and not _names(before) <= names:
            _say(console, f"The report in {out} will be replaced. It is of: {before.command}")
        timed_alone = _timed_alone(configs, out, at_a_time, before)
        with workers(backend, at_a_time, device) as parallel:
            done = _run_all(configs, out, parallel, backend, console)
        runs = [[run for run in done if run.optimizer == s.text] for s in specs]
        results = Results(
            task=made.name,
            metric=f"val_{made.metric}",
            direction=made.direction,
            steps=recipe.steps,
            seeds=list(range(seeds)),
            comparisons=compare_runs(runs, f"val_{made.metric}", made.direction),
            runs=[run for group in runs for run in group],
            command=command,
            versions=_versions(device),
            timed_alone=timed_alone,
        )
        results.save(out)
    return results


def configure(
    task: str,
    specs: Sequence[spec.Spec],
    seeds: Sequence[int],
    *,
    steps: int | None,
    lr: float | None,
    device: str,
    lens: bool,
    task_options: Mapping[str, Any] | None,
) -> tuple[Task, Recipe, list[RunConfig]]:
    """The runs of every optimizer with every seed, checked as far as can be without running them.

    The arguments are those of ``compare``, but for the seeds, which are listed.

    Returns:
        The task, its recipe with the steps and learning rate asked for, and the runs.
    """
    _check_device(device)
    try:
        json.dumps(dict(task_options or {}))
    except TypeError as error:
        raise TypeError(f"task_options must be plain data: {error}") from error
    made = tasks.load(task, task_options)
    recipe = _recipe(made.recipe, steps, lr)
    _check_optimizers(specs, task, made, recipe)
    with userfile.blamed(task):
        data = made.fingerprint()
    files = {
        reference: userfile.load(reference).files
        for reference in (task, *(s.name for s in specs))
        if userfile.is_userfile(reference)
    }
    configs = [
        RunConfig(
            task=task,
            task_options=dict(task_options or {}),
            # Of its own files alone: another optimizer's would start this run anew.
            data=data | files.get(task, {}) | files.get(s.name, {}),
            optimizer=s.text,
            seed=seed,
            recipe=asdict(recipe),
            device=device,
            versions={
                "bandwise": bandwise.__version__,
                "torch": torch.__version__,
                **by_name.package_version(s.name),
            },
            lens=lens,
        )
        for seed in seeds
        for s in specs
    ]
    return made, recipe, configs


def _specs(optimizers: str | Sequence[str]) -> list[spec.Spec]:
    if isinstance(optimizers, str):
        specs = spec.parse_list(optimizers)
    else:
        if not isinstance(optimizers, Sequence):
            raise TypeError(f"optimizers must be a text or several, got {optimizers!r}")
        specs = [spec.parse(text) for text in optimizers]
    texts = [s.text for s in specs]
    if not specs:
        raise ValueError("optimizers must name at least one optimizer")
    if len(set(texts)) < len(texts):
        raise ValueError(f"optimizers must differ, got {', '.join(texts)}")
    return specs


def _recipe(recipe: Recipe, steps: int | None, lr: float | None) -> Recipe:
    if steps is not None:
        _checks.whole("steps", steps, low=1)
        recipe = replace(recipe, steps=steps)
    if lr is not None:
        _checks.number("lr", lr, low=0)
        recipe = replace(recipe, lr=lr)
    return recipe


def _check_device(device: str) -> None:
    try:
        torch.zeros((), device=device)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"device must be one that torch can use here, got {device!r}: {reason}"
        ) from error


def _check_optimizers(specs: Sequence[spec.Spec], task: str, made: Task, recipe: Recipe) -> None:
    """Raise now what would otherwise fail every run."""
    with torch.random.fork_rng(devices=[]), userfile.blamed(task):
        model = made.model()
    if not isinstance(model, nn.Module):
        raise TypeError(f"task {task!r}: model() must return a torch.nn.Module, got {model!r}")
    named = list(model.named_parameters())
    for s in specs:
        own = [(name, nn.Parameter(param.detach())) for name, param in named]
        optimizer = by_name.build(s, own, recipe.lr, recipe)
        if any("lr" not in group for group in optimizer.param_groups):
            raise ValueError(f"optimizer {s.text!r}: its parameter groups have no lr to schedule")
        saved = io.BytesIO()
        torch.save(optimizer.state_dict(), saved)
        saved.seek(0)
        try:
            torch.load(saved, weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"optimizer {s.text!r}: its state_dict must hold tensors and plain data alone, or "
                f"a run could not be resumed: {error}"
            ) from error


def _jobs(jobs: int | None, backend: str, device: str, runs: int) -> int | None:
    if jobs is None and backend != "loky":
        return None
    if jobs is None:
        return 1 if torch.device(device).type != "cpu" else min(joblib.cpu_count(), runs)
    _checks.whole("jobs", jobs, low=1)
    return min(jobs, runs)


# Runs share their process's generators and working directory, and a worker may have threads.
_one_at_a_time = threading.Lock()


def _folder(config: RunConfig, out: Path) -> Path:
    return out / "runs" / config.folder_name()


def _read(config: RunConfig, out: Path) -> Run | str:
    """A finished run, or how it is damaged."""
    folder = _folder(config, out)
    try:
        return read_run(config, folder, folder.relative_to(out).as_posix())
    except DamagedRunError as error:
        return str(error)


def _label(config: RunConfig) -> str:
    return f"{config.optimizer}, seed {config.seed}"


def _run_all(
    configs: Sequence[RunConfig],
    out: Path,
    parallel: joblib.Parallel,
    backend: str,
    console: Console,
) -> list[Run]:
    """Every run, in order: those that were finished, and the others trained."""
    left = [c for c in configs if not (_folder(c, out) / RESULT).exists()]
    if len(left) < len(configs):
        console.print(f"{len(configs) - len(left)} of {len(configs)} runs are finished already.")
    if why := _why_anew(left, out):
        _say(console, why)
    failures = dict(_train_all(left, out, parallel, backend, console)) if left else {}
    runs = []
    for config in configs:
        run = failures.get(_label(config)) or _read(config, out)
        if isinstance(run, str):
            failures[_label(config)] = run
        else:
            runs.append(run)
    if failures:
        raise StudyError(_told(failures, len(configs), out))
    return runs


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _before(out: Path) -> Results | None:
    """What the folder's report is of."""
    try:
        return Results.load(out)
    except (OSError, ValueError):
        return None


def _names(results: Results) -> set[str]:
    return {Path(run.folder).name for run in results.runs}


def _timed_alone(
    configs: Sequence[RunConfig], out: Path, at_a_time: int | None, before: Results | None
) -> bool:
    """Whether no run shares its time with another, nor with another call's state of the machine."""
    folders = [_folder(config, out) for config in configs]
    if before and all((folder / RESULT).exists() for folder in folders):
        return before.timed_alone and {folder.name for folder in folders} <= _names(before)
    return at_a_time == 1 and not any(folder.exists() for folder in folders)


def _why_anew(left: Sequence[RunConfig], out: Path) -> str:
    """What has changed since runs of these configurations were finished, if nothing else has."""
    wanted = {_apart_from_sources(c.plain()): c.data | c.versions for c in left}
    changed: set[str] = set()
    older = 0
    for path in out.glob("runs/*/config.json"):
        try:
            config = read_json(path) if (path.parent / RESULT).exists() else {}
            held = config["data"] | config["versions"]
            now = wanted[_apart_from_sources(config)]
        except (OSError, KeyError, TypeError, ValueError):
            continue  # of another study, or damaged, which is no matter here
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


def _apart_from_sources(config: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in config.items() if key not in ("data", "versions")}
    return json.dumps(rest, sort_keys=True, default=str)


def _train_all(
    left: Sequence[RunConfig],
    out: Path,
    parallel: joblib.Parallel,
    backend: str,
    console: Console,
) -> Iterator[tuple[str, str]]:
    """The labels of the runs that fail, and why; the others are trained to their end."""
    progress = StudyProgress(
        console, {_label(c): _folder(c, out) for c in left}, left[0].recipe["steps"]
    )
    # A cluster's workers are not this process's, and have an end of their own.
    study = os.getpid() if backend == "loky" else None
    with progress.watching():
        for config, failure in parallel(
            joblib.delayed(_attempt)(config, _folder(config, out), Path.cwd(), study)
            for config in left
        ):
            run = failure or _read(config, out)
            if isinstance(run, str):
                progress.failed(_label(config))
                yield _label(config), run


def _told(failures: Mapping[str, str], runs: int, out: Path) -> str:
    """Every failure that takes one line, and the first of those that come with a traceback."""
    lines = [f"{len(failures)} of {runs} runs failed; the others are kept in {out}."]
    lines += [f"{label}: {why}" for label, why in failures.items() if "\n" not in why]
    long = [f"The first of them, {label}:\n{why}" for label, why in failures.items() if "\n" in why]
    return "\n".join(lines + long[:1])


def _attempt(
    config: RunConfig, folder: Path, here: Path, study: int | None
) -> tuple[RunConfig, str | None]:
    """One run's failure must not end the others; a path means what it means ``here``."""
    if study is not None:
        _end_with(study)
    try:
        with _one_at_a_time, chdir(here):
            train(config, folder)
    except (StudyError, userfile.UserFileError) as error:
        return config, str(error)
    except OSError as error:
        own = error.filename is not None and Path(error.filename).parent == folder
        if own or error.errno in _NOT_WRITABLE:
            return config, f"{error}; once {folder} can be written to, the same command goes on"
        return config, _blamed(error, config)
    except (Exception, SystemExit) as error:
        return config, _blamed(error, config)
    return config, None


def _blamed(error: BaseException, config: RunConfig) -> str:
    """Where the user's own code raised it, or else all there is to know."""
    said = userfile.told(error, config.task, spec.parse(config.optimizer).name)
    return said or traceback.format_exc()


@functools.cache
def _end_with(study: int) -> None:
    """End this process soon after the study that it works for, which may have been killed."""

    def watch() -> None:
        while os.getppid() == study:
            time.sleep(1)
        os._exit(1)

    if os.getpid() != study:
        threading.Thread(target=watch, daemon=True).start()


def _command(
    task: str,
    specs: Sequence[spec.Spec],
    seeds: int,
    recipe: Recipe,
    out: Path,
    device: str,
    lens: bool,
    task_options: Mapping[str, Any] | None,
) -> str:
    options = {
        "optimizers": ",".join(s.text for s in specs),
        "seeds": seeds,
        "steps": recipe.steps,
        "lr": recipe.lr,
        **({"device": device} if device != "cpu" else {}),
        "out": out,
        **(task_options or {}),
    }
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    flags = ["--lens"] if lens else []
    return shlex.join(["bandwise", "compare", task, *words, *flags])


def _versions(device: str) -> dict[str, str]:
    machine = {"system": platform.system(), "processors": str(os.cpu_count())}
    return versions(device) | machine
