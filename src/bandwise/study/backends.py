"""Where the runs of a study are trained: in processes of this machine, or on a cluster."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

from bandwise.study.errors import StudyError

_LOSSES = 3  # how many workers a run may kill, for example because it needs too much memory
_ONE_BY_ONE = {"return_as": "generator_unordered", "batch_size": 1}


@contextmanager
def workers(backend: str, jobs: int | None, device: str) -> Iterator[joblib.Parallel]:
    """The workers that train the runs of a study; StudyError if they were killed too often.

    ``jobs=None``: as many as a cluster has room for.
    """
    with ExitStack() as stack:
        try:
            parallel, lost = BACKENDS[backend](stack, jobs, device)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"backend {backend!r} needs {error.name!r}: pip install 'bandwise[{backend}]'",
                name=error.name,
            ) from error
        try:
            yield parallel
        except lost as error:
            remedy = "fewer --jobs" if backend == "loky" else "workers with more"
            raise StudyError(
                f"a worker process was killed, perhaps for want of memory: try {remedy}; "
                "the same command goes on from where it was"
            ) from error


# Each starts its workers until ``stack`` ends, and names the error of too many lost ones.
_Started = tuple[joblib.Parallel, type[Exception]]


def _loky(stack: ExitStack, jobs: int | None, device: str) -> _Started:
    return joblib.Parallel(jobs, backend="loky", **_ONE_BY_ONE), TerminatedWorkerError


def _dask(stack: ExitStack, jobs: int | None, device: str) -> _Started:
    """Dask gives the run of a lost worker to another one."""
    import dask
    from distributed import Client, KilledWorker
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):  # type: ignore[misc]
        """Joblib's reports results only, and waits for ever for a run that dask has given up."""

        def submit(self, func: Any, callback: Any = None) -> Any:
            job = super().submit(func, callback)
            job.add_done_callback(lambda done: done.exception() and callback(done.exception()))
            return job

    client: Any
    try:
        client = nullcontext(Client.current())
    except ValueError:
        if dask.config.get("scheduler-address", None):
            client = Client()
        else:
            # A process trains one run at a time, so it needs one thread.
            with _ignoring_control_c():
                client = Client(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
    backend = Backend(client=stack.enter_context(client))
    stack.enter_context(joblib.parallel_config(backend))
    # Joblib's n_jobs is the number of dask's threads, so pre_dispatch sets the limit.
    return joblib.Parallel(pre_dispatch=jobs or "all", **_ONE_BY_ONE), KilledWorker


def _ray(stack: ExitStack, jobs: int | None, device: str) -> _Started:
    """Ray gives the run of a lost worker to another one, as often as ``_LOSSES`` says."""
    # A thread of ray's pool may outlive the study. Its next call would start a new cluster.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    import ray
    from ray.util.joblib import register_ray
    from ray.util.multiprocessing.pool import ResultThread

    def join_pool() -> None:
        """Let the pool's threads end before the cluster does, or they print errors."""
        for thread in threading.enumerate():
            if isinstance(thread, ResultThread):
                thread.join(timeout=10)

    register_ray()
    if not ray.is_initialized():
        stack.enter_context(ray.init(log_to_driver=False))
    stack.callback(join_pool)
    gpus = int(device.startswith("cuda"))
    retries = {"max_restarts": _LOSSES, "max_task_retries": _LOSSES}
    settings = {"num_cpus": 1, "num_gpus": gpus, **retries}
    stack.enter_context(joblib.parallel_config("ray", n_jobs=jobs or -1, ray_remote_args=settings))
    # Ray's pool cannot return results one by one. Progress is read from the folders.
    return joblib.Parallel(batch_size=1), ray.exceptions.RayActorError


BACKENDS = {"loky": _loky, "dask": _dask, "ray": _ray}


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
