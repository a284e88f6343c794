"""Where the runs of a study are trained: in processes of this machine, or on a cluster.

A cluster's address is told in its own library's way; where there is none, one is started on this
machine. Runs are kept in folders, so all machines must share a file system.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import joblib
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from bandwise.study.errors import StudyError

BACKENDS = ("loky", "dask", "ray")
# What costs so many workers their life, for want of memory, say, must not take all of them.
_LOSSES = 3


def workers(backend: str, jobs: int | None, device: str) -> AbstractContextManager[joblib.Parallel]:
    """What trains ``jobs`` runs at a time on ``device``; ``None``: as many as a cluster has room
    for.

    Raises:
        ModuleNotFoundError: the backend's package is not installed.
        StudyError: from within, when workers were lost for good.
    """
    match backend:
        case "dask":
            return _dask(jobs)
        case "ray":
            return _ray(jobs, device)
        case _:
            return _loky(jobs)


@contextmanager
def _loky(jobs: int | None) -> Iterator[joblib.Parallel]:
    try:
        yield joblib.Parallel(jobs, backend="loky", return_as="generator_unordered", batch_size=1)
    except TerminatedWorkerError as error:
        raise _lost("fewer --jobs") from error
    except KeyboardInterrupt:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)
        raise


@contextmanager
def _dask(jobs: int | None) -> Iterator[joblib.Parallel]:
    """A lost worker's run is given to another by dask itself."""
    try:
        import dask
        from distributed import Client, KilledWorker
        from joblib._dask import DaskDistributedBackend
    except ModuleNotFoundError as error:
        raise _missing("dask", error) from error

    class Backend(DaskDistributedBackend):  # type: ignore[misc]
        """Joblib's tells of results alone: it would wait for ever for what dask has given up."""

        def submit(self, func: Any, callback: Any = None) -> Any:
            job = super().submit(func, callback)
            job.add_done_callback(lambda done: done.exception() and callback(done.exception()))
            return job

    joblib.register_parallel_backend("dask", Backend)
    client: Any
    try:
        client = nullcontext(Client.current())
    except ValueError:
        if dask.config.get("scheduler-address", None):
            client = Client()
        else:
            # Runs share torch's generators with their process: more threads would be of no use.
            with _deaf_to_control_c():
                client = Client(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
    with client as connected:
        try:
            with joblib.parallel_config("dask", client=connected):
                # All of dask's threads are its n_jobs: what it is not given, it cannot start.
                yield joblib.Parallel(
                    pre_dispatch=jobs or "all", return_as="generator_unordered", batch_size=1
                )
        except KilledWorker as error:
            raise _lost("workers with more") from error


@contextmanager
def _ray(jobs: int | None, device: str) -> Iterator[joblib.Parallel]:
    """A lost worker's run is given to another by ray, if it is told so."""
    try:
        import ray
        from ray.util.joblib import register_ray
    except ModuleNotFoundError as error:
        raise _missing("ray", error) from error

    register_ray()
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False)
    settings = {
        "num_cpus": 1,
        "num_gpus": int(device.startswith("cuda")),
        "max_restarts": _LOSSES,
        "max_task_retries": _LOSSES,
    }
    try:
        with joblib.parallel_config("ray", n_jobs=jobs or -1, ray_remote_args=settings):
            # Its pool cannot give results one by one; progress is read from the folders.
            yield joblib.Parallel(batch_size=1)
    except ray.exceptions.RayActorError as error:
        raise _lost("workers with more") from error
    finally:
        if started:
            ray.shutdown()


@contextmanager
def _deaf_to_control_c() -> Iterator[None]:
    """For what is started meanwhile: a terminal interrupts all, and it is for this process to say
    so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _lost(remedy: str) -> StudyError:
    return StudyError(
        f"a worker process was killed, perhaps for want of memory: try {remedy}; "
        "the same command goes on from where it was"
    )


def _missing(backend: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"backend {backend!r} needs {error.name!r}: pip install 'bandwise[{backend}]'",
        name=error.name,
    )
