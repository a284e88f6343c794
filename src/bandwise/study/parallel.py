"""The runs of a study, trained in parallel; the failure of one does not end the others."""

import errno
import threading
import traceback
from collections.abc import Sequence
from contextlib import chdir
from itertools import islice
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
from bandwise.study.run_files import read_run

# A full disk, quota or file, and a disk for reading only.
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# Runs share the generators and the working directory of a process, and a worker may have threads.
_one_at_a_time = threading.Lock()


def finish_runs(
    configs: Sequence[RunConfig],
    left: Sequence[RunConfig],
    out: Path,
    jobs: int | None,
    backend: str,
    console: Console,
) -> list[Run]:
    """Train the runs that are left, and read all of them; StudyError if one failed."""
    failures: dict[str, str] = {}
    if left:
        here = Path.cwd()
        progress = StudyProgress(left, out, failures, console)
        with workers(backend, jobs, left[0].device) as parallel, progress:
            ended = parallel(joblib.delayed(_attempt)(c, out / c.folder, here) for c in left)
            failures.update((label, failure) for label, failure in ended if failure)
    runs = []
    for config in configs:
        if config.label not in failures:
            try:
                runs.append(read_run(config, out / config.folder))
            except DamagedRunError as error:
                failures[config.label] = str(error)
    if failures:
        lines = [f"{len(failures)} of {len(configs)} runs failed; the others are kept in {out}."]
        lines += [f"{label}: {why}" for label, why in failures.items() if "\n" not in why]
        # One traceback is enough.
        long = ((label, why) for label, why in failures.items() if "\n" in why)
        lines += [f"The first of them, {label}:\n{why}" for label, why in islice(long, 1)]
        raise StudyError("\n".join(lines))
    return runs


def _attempt(config: RunConfig, folder: Path, here: Path) -> tuple[str, str | None]:
    """Train a run in a worker; its label, and why it has failed. Paths are relative to ``here``."""
    try:
        with _one_at_a_time, chdir(here):
            train(config, folder)
    except (Exception, SystemExit) as error:
        return config.label, _why(error, config, folder)
    return config.label, None


def _why(error: BaseException, config: RunConfig, folder: Path) -> str:
    """Why a run has failed: in a line if bandwise or the user's code tells it, or the traceback."""
    if isinstance(error, (StudyError, userfile.UserFileError)):
        return str(error)
    if isinstance(error, OSError):
        own = error.filename is not None and Path(error.filename).parent == folder
        if own or error.errno in _NOT_WRITABLE:
            return f"{error}; once {folder} can be written to, the same command goes on"
    in_file = userfile.explain(error, config.task, spec.parse(config.optimizer).base)
    return in_file or "".join(traceback.format_exception(error))
