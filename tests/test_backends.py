"""Studies on clusters: two workers, one of which is killed while it trains."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from bandwise.study import Results, StudyError, compare
from test_crashes import is_alive

# Tells who trains which run, and waits to be killed.
TASK = """
import os, time
from pathlib import Path
import torch
from torch import nn
from bandwise.tasks import Recipe, Task, generator

class Line(Task):
    name = "line"
    recipe = Recipe(steps=24, lr=1e-2, evals=4)

    def __init__(self, delay=0.0):
        self.delay = delay

    def model(self):
        return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def batch(self, seed, step):
        with open("trainers", "a") as file:
            print(os.getpid(), seed, step, file=file)
        time.sleep(self.delay)
        x = torch.randn(16, 3, generator=generator(seed, step))
        return x, x.sum(1, keepdim=True)

    def loss(self, model, batch):
        x, y = batch
        return (model(x) - y).square().mean()

    def evaluate(self, model, split):
        x = torch.randn(64, 3, generator=generator(1, 2))
        return {"loss": (model(x) - x.sum(1, keepdim=True)).square().mean().item()}
"""
OPTIMIZERS = "smi-adamw:min_ndim=1,nsf:p=0.7"
OPTIONS = {"optimizers": OPTIMIZERS, "seeds": 2, "delay": 0.1}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "line.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*words, **kwargs):
    return subprocess.Popen(
        [sys.executable, *map(str, words)], start_new_session=True, text=True, **kwargs
    )


def bandwise(backend, jobs, **kwargs):
    words = ["compare", "line.py:Line", "--backend", backend, "--jobs", jobs, "--out", backend]
    words += [word for key, value in OPTIONS.items() for word in (f"--{key}", value)]
    code = "from bandwise.cli import main; main()"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return command("-c", code, *words, **pipes, **kwargs)


def ended(process):
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def trainers(folder):
    """The processes that train, and what: {pid: [(seed, step), …]}."""
    found = {}
    path = folder / "trainers"
    for line in path.read_text().splitlines() if path.exists() else ():
        pid, seed, step = map(int, line.split())
        found.setdefault(pid, []).append((seed, step))
    return found


def wait_for_two_past_a_checkpoint(process, folder):
    """The evaluation after step 6 leaves one."""
    deadline = time.monotonic() + 120
    while sorted(steps[-1][1] for steps in trainers(folder).values())[-2:-1] < [8]:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, trainers(folder)
        time.sleep(0.05)


def figures(results):
    """What must not depend on where a study was run."""
    data = asdict(results)
    for row in (*data["runs"], *data["comparisons"]):
        row.pop("seconds_per_step")
    data.pop("command")
    data.pop("timed_alone")
    return data


@contextmanager
def dask_cluster(folder):
    """A scheduler and two workers in another folder, as if on other machines."""
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    file = folder / "scheduler.json"
    words = ("--scheduler-file", file, "--no-dashboard")
    started = []
    try:
        scheduler = ("-m", "distributed.cli.dask_scheduler", *words, "--port", 0)
        started.append(command(*scheduler, cwd=elsewhere))
        for _ in range(2):
            worker = ("-m", "distributed.cli.dask_worker", *words, "--no-nanny", "--nthreads", 1)
            started.append(command(*worker, cwd=elsewhere))
        deadline = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield {"DASK_SCHEDULER_ADDRESS": json.loads(file.read_text())["address"]}
    finally:
        for process in started:
            ended(process)


@contextmanager
def ray_cluster(folder):
    """One that the command starts itself."""
    yield {}


@pytest.mark.parametrize("cluster", [dask_cluster, ray_cluster], ids=["dask", "ray"])
def test_a_study_that_loses_a_worker_ends_with_the_right_result(cluster, folder):
    backend = cluster.__name__.partition("_")[0]
    pytest.importorskip({"dask": "distributed"}.get(backend, backend))
    with cluster(folder) as environment:
        process = bandwise(backend, 2, env={**os.environ, **environment})
        try:
            wait_for_two_past_a_checkpoint(process, folder)
            lost = next(iter(trainers(folder)))
            os.kill(lost, signal.SIGKILL)
            out, err = process.communicate(timeout=120)
        finally:
            ended(process)
    assert process.returncode == 0, out + err
    assert "[4/4] " in err

    steps = trainers(folder)
    assert steps[lost][-1][1] < 24
    assert process.pid not in steps
    begun = [at for of_one in steps.values() for at in of_one if at[1] == 1]
    assert sorted(begun) == [(0, 1), (0, 1), (1, 1), (1, 1)]  # none twice: it went on

    local = compare(
        "line.py:Line", OPTIMIZERS, seeds=2, jobs=1, out="local", console=Console(quiet=True),
        task_options={"delay": 0.1},
    )  # fmt: skip
    assert figures(Results.load(Path(backend))) == figures(local)


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_failing_run_is_told_as_on_this_machine(backend, folder):
    pytest.importorskip({"dask": "distributed"}.get(backend, backend))
    (folder / "bad.py").write_text(
        "import torch\n"
        "class Bad(torch.optim.SGD):\n"
        "    def step(self, closure=None):\n"
        "        raise ZeroDivisionError('on purpose')\n"
    )
    with pytest.raises(StudyError, match=r"2 of 4 runs failed(.|\n)*on purpose"):
        compare(
            "line.py:Line", "adamw,bad.py:Bad", seeds=2, jobs=2, backend=backend,
            console=Console(quiet=True),
        )  # fmt: skip
    assert len(list(folder.glob("bandwise-runs/Line/runs/*/result.json"))) == 2


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_control_c_ends_a_study_on_a_cluster_cleanly(backend, folder):
    pytest.importorskip({"dask": "distributed"}.get(backend, backend))
    process = bandwise(backend, 2)
    try:
        wait_for_two_past_a_checkpoint(process, folder)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        ended(process)
    assert process.returncode == 130, out + err
    assert "The same command goes on from where it was." in err
    assert "Traceback" not in out + err
    deadline = time.monotonic() + 60
    while any(map(is_alive, trainers(folder))):
        assert time.monotonic() < deadline, "a worker has outlived the command"
        time.sleep(0.05)


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_run_that_kills_every_worker_is_told(backend, folder):
    pytest.importorskip({"dask": "distributed"}.get(backend, backend))
    (folder / "killed.py").write_text(
        "import os, signal\n"
        "from line import Line\n"
        "class Killed(Line):\n"
        "    def batch(self, seed, step):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with pytest.raises(StudyError, match="a worker process was killed"):
        compare(
            "killed.py:Killed", "adamw", seeds=2, jobs=2, backend=backend,
            console=Console(quiet=True),
        )  # fmt: skip


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_missing_package_is_named_with_its_extra(backend, folder, monkeypatch):
    for name in ("dask", "distributed", "ray"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'bandwise\[{backend}\]'"):
        compare("line.py:Line", OPTIMIZERS, backend=backend)


def test_a_backend_that_there_is_not_is_refused(folder):
    with pytest.raises(ValueError, match="backend must be one of loky, dask, ray, got 'spark'"):
        compare("line.py:Line", OPTIMIZERS, backend="spark")


def test_two_workers_never_train_one_run_at_once(folder):
    """One was given up for lost and was not: the other waits for it and takes its result."""
    out = str(folder / "out")
    code = (
        "from bandwise.study.run import train; from pathlib import Path\n"
        "from bandwise.study.config import RunConfig\n"
        "from bandwise import userfile; from bandwise.tasks import Recipe\n"
        "from dataclasses import asdict\n"
        "data = userfile.load('line.py:Line').files\n"
        "config = RunConfig('line.py:Line', {'delay': 0.05}, data, 'adamw', 0,"
        " asdict(Recipe(24, 0.01, evals=4)), 'cpu', {})\n"
        f"train(config, Path({out!r}))"
    )
    pair = [command("-c", code) for _ in range(2)]
    assert [process.wait(timeout=60) for process in pair] == [0, 0]
    assert [len(steps) for steps in trainers(folder).values()] == [24]


def test_a_worker_with_other_versions_is_refused(folder, monkeypatch):
    other = {"bandwise": "0.0.0"}
    monkeypatch.setattr("bandwise.study.config.code_versions", lambda *_: other)
    with pytest.raises(StudyError, match=r"begun with bandwise .*, and this worker has 0\.0\.0"):
        compare("line.py:Line", "adamw", seeds=1, jobs=1, console=Console(quiet=True))
