"""Where the runs of a study are trained: in processes of this machine, or on a cluster.

The library of a cluster finds its address. If there is none, it starts a cluster on this machine.
Runs are kept in folders, so all machines must share a file system.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from bandwise.study.errors import StudyError

BACKENDS = ("loky", "dask", "ray")
# How many workers a run may kill, for example because it needs too much memory.
_LOSSES = 3


def workers(backend: str, jobs: int | None, device: str) -> AbstractContextManager[joblib.Parallel]:
    """The workers that train the runs of a study.

    Args:
        backend: one of ``BACKENDS``.
        jobs: runs at a time; ``None``: as many as a cluster has room for.
        device: what they train on.

    Raises:
        ModuleNotFoundError: the backend's package is not installed.
        StudyError: while they train, if workers were killed too often.
    """
    if backend == "dask":
        return _dask(jobs)
    return _ray(jobs, device) if backend == "ray" else _loky(jobs)


@contextmanager
def _loky(jobs: int | None) -> Iterator[joblib.Parallel]:
    try:
        yield joblib.Parallel(jobs, backend="loky", return_as="generator_unordered", batch_size=1)
    except TerminatedWorkerError as error:
        raise _lost("fewer --jobs") from error


@contextmanager
def _dask(jobs: int | None) -> Iterator[joblib.Parallel]:
    """Dask gives the run of a lost worker to another one."""
    try:
        import dask
        from distributed import Client, KilledWorker
        from joblib._dask import DaskDistributedBackend
    except ModuleNotFoundError as error:
        raise _missing("dask", error) from error

    class Backend(DaskDistributedBackend):  # type: ignore[misc]
        """Joblib's reports results only, and waits for ever for a run that dask has given up."""

        def submit(self, func: Any, callback: Any = None) -> Any:
            job = super().submit(func, callback)
            job.add_done_callback(lambda done: done.exception() and callback(done.exception()))
            return job

    def connected() -> Any:
        try:
            return nullcontext(Client.current())
        except ValueError:
            if dask.config.get("scheduler-address", None):
                return Client()
        # A process trains one run at a time, so it needs one thread.
        with _ignoring_control_c():
            return Client(n_workers=jobs, threads_per_worker=1, dashboard_address=None)

    joblib.register_parallel_backend("dask", Backend)
    try:
        with connected() as client, joblib.parallel_config("dask", client=client):
            # Joblib's n_jobs is the number of dask's threads, so pre_dispatch sets the limit.
            yield joblib.Parallel(
                pre_dispatch=jobs or "all", return_as="generator_unordered", batch_size=1
            )
    except KilledWorker as error:
        raise _lost("workers with more") from error


@contextmanager
def _ray(jobs: int | None, device: str) -> Iterator[joblib.Parallel]:
    """Ray gives the run of a lost worker to another one, as often as ``_LOSSES`` says."""
    # A thread of ray's pool may outlive the study. Its next call would start a new cluster.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        import ray
        from ray.util.joblib import register_ray
    except ModuleNotFoundError as error:
        raise _missing("ray", error) from error

    register_ray()
    gpus = int(device.startswith("cuda"))
    retries = {"max_restarts": _LOSSES, "max_task_retries": _LOSSES}
    settings = {"num_cpus": 1, "num_gpus": gpus, **retries}
    started = nullcontext() if ray.is_initialized() else ray.init(log_to_driver=False)
    try:
        with started, joblib.parallel_config("ray", n_jobs=jobs or -1, ray_remote_args=settings):
            # Ray's pool cannot return results one by one. Progress is read from the folders.
            yield joblib.Parallel(batch_size=1)
    except ray.exceptions.RayActorError as error:
        raise _lost("workers with more") from error


@contextmanager
def _ignoring_control_c() -> Iterator[None]:
    """Start processes that ignore Control-C: a terminal sends it to all, this one handles it."""
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
