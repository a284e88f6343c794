"""The optimizers on several processes. Each check of ``distributed_checks.py`` is a test.

Processes take seconds to start, so one start runs all checks for its number of processes. Four
processes run first. Then two processes and one load their checkpoints.
"""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch.multiprocessing import spawn

import bandwise as bw
import distributed_checks as checks
from bandwise.optim._paths import sharding

ROOT = Path(__file__).parents[1]
ALL = [(world, name) for world in (4, 2) for name in checks.CHECKS[world]]
LOADED = [(name, how) for name in checks.SAVERS for how in ("dcp", "flat", "full")]


def run(folder, device, world, names):
    try:
        spawn(checks.process, (world, folder, device, names), nprocs=world)
    except Exception as error:
        (folder / f"{world}.txt").write_text(str(error))


def judge(folder, world, name):
    """Raise the error of the processes in a check."""
    results = [checks.outcome(folder, world, rank, name) for rank in range(world)]
    raised = [result.read_text() for result in results if result.exists()]
    assert not any(raised), "\n".join(raised)
    if len(raised) < world:
        pytest.fail(f"not reached: {(folder / f'{world}.txt').read_text()}")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The folder with the outcomes. One worker of pytest runs the processes for all workers."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "distributed"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            for world in (4, 2):
                run(folder, "cpu", world, list(checks.CHECKS[world]))
    return folder


@pytest.mark.parametrize(("world", "name"), ALL)
def test_on_several_processes(folder, world, name):
    judge(folder, world, name)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize(("name", "how"), LOADED)
def test_one_process_loads_what_four_saved_and_trains_on(folder, monkeypatch, name, how):
    judge(folder, 4, "four_save")
    monkeypatch.setenv("BANDWISE_CHECKPOINTS", str(folder))
    checks.one_loads_what_four_saved_and_trains_on(name, how)


def test_a_share_alone_is_refused_by_a_process_without_others(folder):
    judge(folder, 2, "a_share_that_one_rank_saved_is_refused_by_others")
    state = torch.load(folder / "share-2.pt", weights_only=True)
    opt = checks.OPTIMIZERS["SMI around AdamW"](checks.network().parameters())
    with pytest.raises(ValueError, match="one rank's share of a history"):
        opt.load_state_dict(state)
    assert not opt.state


def torchrun(processes, script, *arguments):
    """The losses by step that an example prints under torchrun."""
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, *command, str(ROOT / "examples" / script), *map(str, arguments)],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(bw.__file__).parents[1]),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"step (\d+), loss (\S+)", done.stdout))


@pytest.mark.skipif(not (ROOT / "examples").exists(), reason="installed without the examples")
def test_examples_train_and_go_on_with_another_number_of_processes(tmp_path):
    first = torchrun(2, "ddp.py", "--steps", 20, "--checkpoint", tmp_path / "ddp")
    later = torchrun(1, "ddp.py", "--steps", 30, "--checkpoint", tmp_path / "ddp")
    unbroken = torchrun(2, "fsdp.py", "--steps", 30, "--checkpoint", tmp_path / "fsdp")
    assert list(later) == ["30"]
    assert {**first, **later} == unbroken
    assert float(unbroken["30"]) < float(unbroken["10"]) / 2


def test_batches_take_turns_while_they_wait():
    """Two run at a time. The next starts as soon as one is done."""
    events = []

    def work(name, exchanges):
        for i in range(exchanges):
            events.append(f"{name}{i}")
            yield

    sharding.interleaved(work(*some) for some in [("a", 3), ("b", 1), ("c", 2)])
    assert events == ["a0", "b0", "a1", "a2", "c0", "c1"]


def test_shard_work_is_checked():
    base = torch.optim.SGD([torch.zeros(2, 2, requires_grad=True)])
    with pytest.raises(TypeError, match="shard_work must be True, False or a DeviceMesh, got 2"):
        bw.SMI(base, 5, shard_work=2)
    opt = pickle.loads(pickle.dumps(bw.SMI(base, 5, shard_work=True)))  # pickling keeps it
    (param,) = opt.param_groups[0]["params"]
    param.grad = torch.ones(2, 2)
    with pytest.raises(RuntimeError, match="shard_work=True needs the processes"):
        opt.step()


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.distributed.is_nccl_available() or torch.cuda.device_count() < 2,
    reason="needs two CUDA devices and NCCL",
)
def test_on_two_gpus(tmp_path):
    names = [name for name in checks.CHECKS[2] if name in checks.CHECKS[4]]
    run(tmp_path, "cuda", 2, names)
    for name in names:
        judge(tmp_path, 2, name)
