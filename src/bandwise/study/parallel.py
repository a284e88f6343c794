"""The runs of a study, trained in parallel; the failure of one does not end the others."""

from __future__ import annotations

import errno
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path

import joblib
from rich.console import Console

from bandwise import userfile
from bandwise.study import spec
from bandwise.study.backends import workers
from bandwise.study.config import RunConfig
from bandwise.study.errors import DamagedRunError, StudyError
from bandwise.study.progress import StudyProgress
from bandwise.study.results import Run
from bandwise.study.run import train
from bandwise.study.run_files import RESULT, read_run

# A full disk, quota or file, and a disk for reading only.
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# Runs share the generators and the working directory of a process, and a worker may have threads.
_one_at_a_time = threading.Lock()


def finish_runs(
    configs: Sequence[RunConfig],
    out: Path,
    *,
    jobs: int | None,
    backend: str,
    device: str,
    console: Console,
) -> list[Run]:
    """Train the runs that are not finished, and read all of them, in the order of ``configs``.

    Args:
        configs: the runs.
        out: the study's folder.
        jobs: runs at a time; ``None``: as many as a cluster has room for.
        backend: where the runs are trained: see ``bandwise.study.backends``.
        device: what they are trained on.
        console: where progress is shown.

    Raises:
        StudyError: a run failed.
    """
    left = [c for c in configs if not (c.folder_in(out) / RESULT).exists()]
    failures: dict[str, str] = {}
    if left:
        folders = {c.label: c.folder_in(out) for c in left}
        progress = StudyProgress(console, folders, left[0].recipe["steps"])
        here = Path.cwd()
        with workers(backend, jobs, device) as parallel, progress.watching():
            ended = parallel(joblib.delayed(_attempt)(c, folders[c.label], here) for c in left)
            for config, failure in ended:
                if failure:
                    progress.failed(config.label)
                    failures[config.label] = failure
    runs = []
    for config in configs:
        if config.label in failures:
            continue
        try:
            runs.append(read_run(config, config.folder_in(out)))
        except DamagedRunError as error:
            failures[config.label] = str(error)
    if failures:
        raise StudyError(_summary(failures, len(configs), out))
    return runs


def _attempt(config: RunConfig, folder: Path, here: Path) -> tuple[RunConfig, str | None]:
    """Train a run in a worker. Paths are relative to ``here``.

    Returns:
        The run, and why it has failed, or ``None``.
    """
    try:
        with _one_at_a_time, chdir(here):
            train(config, folder)
    except (StudyError, userfile.UserFileError) as error:
        return config, str(error)
    except OSError as error:
        own = error.filename is not None and Path(error.filename).parent == folder
        if own or error.errno in _NOT_WRITABLE:
            return config, f"{error}; once {folder} can be written to, the same command goes on"
        return config, _explain(error, config)
    except (Exception, SystemExit) as error:
        return config, _explain(error, config)
    return config, None


def _explain(error: BaseException, config: RunConfig) -> str:
    """The line of the user's code that raised the error; without such a line, the traceback."""
    own = userfile.explain(error, config.task, spec.parse(config.optimizer).base)
    return own or traceback.format_exc()


def _summary(failures: Mapping[str, str], runs: int, out: Path) -> str:
    """All failures of one line, and the first of those with a traceback."""
    lines = [f"{len(failures)} of {runs} runs failed; the others are kept in {out}."]
    lines += [f"{label}: {why}" for label, why in failures.items() if "\n" not in why]
    long = [f"The first of them, {label}:\n{why}" for label, why in failures.items() if "\n" in why]
    return "\n".join(lines + long[:1])
