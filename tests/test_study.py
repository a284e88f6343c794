"""Studies: their files, resuming, separation and messages."""

import copy
import csv
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from bandwise import tasks, userfile
from bandwise.files import from_json, replacing, to_json
from bandwise.study import Results, StudyError, by_name, compare, spec
from bandwise.study.config import RunConfig
from bandwise.study.run import train
from bandwise.study.run_files import read_metrics
from bandwise.study.training import Training, learning_rate_factor
from bandwise.tasks import Recipe

# A task with dropout and a test split, small enough to train in milliseconds.
TASK = """
import torch
from torch import nn
from bandwise.tasks import Recipe, Task, generator

class Line(Task):
    name = "line"
    splits = ("val", "test")
    recipe = Recipe(steps=24, lr=1e-2, evals=4)

    def __init__(self, fail_at=None, delay=0.0, nan_at=None):
        self.fail_at, self.delay, self.nan_at = fail_at, delay, nan_at

    def model(self):
        return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def batch(self, seed, step):
        if step == self.fail_at:
            raise ArithmeticError("as asked for")
        if self.delay:
            import time
            time.sleep(self.delay)
        x = torch.randn(16, 3, generator=generator(seed, step))
        return x, x.sum(1, keepdim=True) * (float("nan") if step == self.nan_at else 1)

    def loss(self, model, batch):
        x, y = batch
        return (model(x) - y).square().mean()

    def evaluate(self, model, split):
        x = torch.randn(64, 3, generator=generator(1, 2 if split == "val" else 3))
        return {"loss": (model(x) - x.sum(1, keepdim=True)).square().mean().item()}
"""
OPTIMIZERS = "adamw,smi-adamw:min_ndim=1,nsf:p=cyclic(0.7,0.1,10)"


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "line.py"
    path.write_text(TASK)
    return f"{path}:Line"


def quiet():
    return Console(file=open(os.devnull, "w"), force_terminal=False)  # noqa: PTH123


def study(task, out, optimizers=OPTIMIZERS, **kwargs):
    kwargs = {"seeds": 2, "jobs": 1, "console": quiet(), **kwargs}
    return compare(task, optimizers, out=out, **kwargs)


def figures(results):
    """The figures that must not depend on the way of training."""
    data = asdict(results)
    for run in data["runs"]:
        run.pop("seconds_per_step")
    for row in data["comparisons"]:
        row.pop("seconds_per_step")
    data.pop("command")
    data.pop("timed_alone")
    return data


def test_what_a_study_stores(task, tmp_path):
    results = study(task, tmp_path / "out")
    assert figures(Results.load(tmp_path / "out")) == figures(results)
    assert [c.optimizer for c in results.comparisons] == OPTIMIZERS.replace(",nsf", " nsf").replace(
        "adamw,smi", "adamw smi").split()  # fmt: skip
    run = results.runs_of("smi-adamw:min_ndim=1")[1]
    assert run.seed == 1
    assert [row["step"] for row in run.evals] == [0, 6, 12, 18, 24]
    assert run.final.keys() == {"train_loss", "val_loss", "test_loss"}
    assert run.final["val_loss"] == run.evals[-1]["val_loss"]
    assert run.training[-1]["alpha"] == pytest.approx(0.5)
    assert results.runs_of("nsf:p=cyclic(0.7,0.1,10)")[0].training[4]["p"] == pytest.approx(0.1)
    assert run.config["settings"]["smi_alpha"] == "Cosine(start=0.1, end=0.5)"
    assert run.config["settings"]["eps"] == 1e-8
    config = json.loads((tmp_path / "out" / run.folder / "config.json").read_text())
    assert (config["optimizer"], config["seed"]) == (run.optimizer, 1)
    with (tmp_path / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert float(rows[0]["test_loss"]) == results.runs[0].final["test_loss"]


def test_one_seed_means_one_start_and_one_stream_of_batches(task, tmp_path):
    results = study(task, tmp_path / "out", "adamw,adamw:eps=1e-8,sgd")
    same, twin, other = (results.runs_of(c.optimizer)[0] for c in results.comparisons)
    assert same.evals == twin.evals
    assert same.evals[0] == other.evals[0]
    assert same.evals[-1] != other.evals[-1]
    assert results.runs_of("adamw")[1].evals[0] != same.evals[0]


@pytest.mark.parametrize("text", OPTIMIZERS.replace(",nsf", " nsf").replace(",smi", " smi").split())
def test_a_closure_leaves_the_training_as_it_was_without(task, tmp_path, text):
    """Compare with a loop as in torch's tutorials: gradients first, then a step without closure."""
    (run,) = study(task, tmp_path, text, seeds=1).runs
    made = tasks.load(task)
    torch.manual_seed(0)
    model = made.model()
    optimizer = by_name.build(
        spec.parse(text), model.named_parameters(), made.recipe.lr, made.recipe
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, made.recipe)
    )
    for step in range(1, made.recipe.steps + 1):
        torch.manual_seed(tasks.generator(0, -step).initial_seed())
        made.loss(model.train(), made.batch(0, step)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), made.recipe.grad_clip)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    checkpoint = torch.load(tmp_path / run.folder / "checkpoint.pt", weights_only=True)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, checkpoint["model"][name])


def test_an_optimizer_that_ignores_its_closure_is_told_so(task, tmp_path):
    file = tmp_path / "deaf.py"
    file.write_text(
        "import torch\n"
        "class Deaf(torch.optim.SGD):\n"
        "    def step(self, closure=None):\n"
        "        return super().step()\n"
    )
    with pytest.raises(StudyError, match=r"Deaf\.step must call the closure"):
        study(task, tmp_path / "out", f"{file}:Deaf", seeds=1)


def test_dropout_depends_on_seed_and_step_alone(tmp_path):
    """The task's loss is a number from torch's global generator."""
    file = tmp_path / "noise.py"
    loss = "return super().loss(model, batch) * 0 + torch.rand(())"
    file.write_text(
        f"{TASK}\nclass Noise(Line):\n    def loss(self, model, batch):\n        {loss}\n"
    )
    results = study(f"{file}:Noise", tmp_path / "out", "adamw,sgd", steps=8)
    adamw, sgd = ([r.training for r in results.runs_of(name)] for name in ("adamw", "sgd"))
    drawn = [[row["train_loss"] for row in rows] for rows in adamw]
    assert drawn == [[row["train_loss"] for row in rows] for rows in sgd]
    assert len({*drawn[0], *drawn[1]}) == 16


def test_the_result_does_not_depend_on_jobs(task, tmp_path):
    one = study(task, tmp_path / "one", jobs=1)
    three = study(task, tmp_path / "three", jobs=3)
    assert figures(one) == figures(three)


@pytest.mark.parametrize("seconds", [60, 0], ids=["by evaluation", "by time"])
def test_a_run_cut_off_anywhere_goes_on_to_the_same_result(task, tmp_path, monkeypatch, seconds):
    """Every optimizer stops at every call for a batch. Metrics are equal to the last byte."""
    monkeypatch.setattr("bandwise.study.run._SAVE_SECONDS", seconds)
    for optimizer in OPTIMIZERS.split(",", 1)[0], "smi-adamw:refresh_every=5", "nsf:p=0.7":
        whole, cut = tmp_path / "whole" / optimizer, tmp_path / "cut" / optimizer
        data = userfile.load(task).files
        recipe = asdict(Recipe(24, 0.01, evals=4))
        config = RunConfig(task, {}, data, optimizer, 0, recipe, "cpu", {})
        train(config, whole)
        for step in range(1, 25, 4):
            with pytest.raises(ArithmeticError):
                train(replace(config, task_options={"fail_at": step}), cut)
            assert not (cut / "result.json").exists()
            if seconds == 0 and step > 1:
                checkpoint = torch.load(cut / "checkpoint.pt", weights_only=True)
                assert checkpoint["step"] == step - 1
        train(config, cut)

        results = [from_json((f / "result.json").read_text()) for f in (cut, whole)]
        for result in results:  # checksums of metrics.jsonl, which has times
            del result["files"], result["crc32"]
        assert results[0] == results[1]
        for rows, right in zip(read_metrics(cut), read_metrics(whole), strict=True):
            for row in (*rows, *right):
                row.pop("seconds_per_step", None)
            assert rows == right
        weights, right = (
            torch.load(f / "checkpoint.pt", weights_only=True)["model"] for f in (cut, whole)
        )
        assert all(torch.equal(weights[name], right[name]) for name in right)


def test_a_study_killed_goes_on(task, tmp_path):
    """SIGKILL to the whole process group, twice, at random moments."""
    out = tmp_path / "out"
    code = (
        "import sys; from bandwise.study import compare\n"
        f"compare({task!r}, {OPTIMIZERS!r}, seeds=2, out={str(out)!r}, jobs=2,"
        " task_options={'delay': 0.02})"
    )
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        deadline = time.monotonic() + 60
        seen = len(list(out.glob("runs/*/checkpoint.pt")))
        while len(list(out.glob("runs/*/checkpoint.pt"))) <= seen:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    results = study(task, out, task_options={"delay": 0.02})
    right = study(task, tmp_path / "right", task_options={"delay": 0.02})
    assert figures(results) == figures(right)


def test_finished_runs_are_kept_and_other_configurations_left_alone(task, tmp_path):
    out = tmp_path / "out"
    first = study(task, out)
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/*")}
    again = study(task, out, OPTIMIZERS + ",sgd")
    assert figures(first)["runs"] == figures(again)["runs"][:6]
    study(task, out, lr=0.5)
    Path(task.rpartition(":")[0]).write_text(TASK + "# another file\n")
    changed = study(task, out)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    folders = {run.folder for results in (again, changed) for run in results.runs}
    assert len(folders) == 8 + 6


def test_an_optimizer_of_the_user_s_does_not_start_the_others_anew(task, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from torch.optim import SGD as Mine\n")
    first = study(task, tmp_path / "out", "adamw")
    again = study(task, tmp_path / "out", f"adamw,{file}:Mine")
    assert [run.folder for run in again.runs_of("adamw")] == [run.folder for run in first.runs]
    file.write_text("from torch.optim import SGD as Mine\n# edited\n")
    edited = study(task, tmp_path / "out", f"adamw,{file}:Mine")
    folders = [{run.folder for run in results.runs} for results in (again, edited)]
    assert len(folders[0] & folders[1]) == 2  # adamw's, not the edited optimizer's


def test_an_optimizer_of_the_user_s_that_smi_wraps_starts_anew_when_edited(task, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from torch.optim import SGD as Mine\n")
    (first,) = study(task, tmp_path / "out", f"smi-{file}:Mine", seeds=1).runs
    assert first.config["settings"]["smi_q"] == 0.25
    assert f"{file}:Mine" in first.config["data"]
    file.write_text("from torch.optim import SGD as Mine\n# edited\n")
    (edited,) = study(task, tmp_path / "out", f"smi-{file}:Mine", seeds=1).runs
    assert edited.folder != first.folder


def test_a_failing_run_does_not_end_the_others(task, tmp_path):
    file = tmp_path / "bad.py"
    file.write_text(
        "import torch\n"
        "class Bad(torch.optim.SGD):\n"
        "    def step(self, closure=None):\n"
        "        raise ZeroDivisionError('on purpose')\n"
    )
    with pytest.raises(StudyError, match=r"2 of 4 runs failed(.|\n)*on purpose"):
        study(task, tmp_path / "out", f"adamw,{file}:Bad")
    assert len(list((tmp_path / "out").glob("runs/*/result.json"))) == 2


def test_a_run_that_diverges_ends_and_is_told(task, tmp_path):
    results = study(task, tmp_path / "out", "adamw,sgd:lr=1e30")
    run = results.runs_of("sgd:lr=1e30")[0]
    assert run.diverged
    assert run.steps < 24
    assert results.comparisons[1].verdict == "worse"
    assert "inf or NaN" in results.comparisons[1].why
    stored = json.loads((tmp_path / "out" / "results.json").read_text(), parse_constant=pytest.fail)
    assert stored["comparisons"][1]["diverged"] == 2
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/runs/*/*")}
    again = study(task, tmp_path / "out", "adamw,sgd:lr=1e30")
    assert to_json(figures(again)) == to_json(figures(results))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/runs/*/*")} == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"optimizers": ""}, "name is missing"),
        ({"optimizers": "adamw,adamw"}, "must differ"),
        ({"optimizers": "adamv"}, "adamv"),
        ({"optimizers": "smi-adamw:q=3"}, "q must be at most 1"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"lr": -1.0}, "lr must be at least 0"),
        ({"jobs": 0}, "jobs must be at least 1"),
        ({"task_options": {"size": 3}}, "size"),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(task, tmp_path, change, says):
    with pytest.raises((ValueError, RuntimeError), match=r".") as caught:
        study(task, tmp_path / "out", **change)
    assert says in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_two_studies_in_one_folder_at_once_are_refused(task, tmp_path):
    from filelock import FileLock

    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(StudyError, match="another command"):
        study(task, tmp_path / "out")


def test_learning_rate_warms_up_and_falls_to_a_tenth():
    recipe = Recipe(steps=1000, lr=1.0, warmup=0.1)
    factors = [learning_rate_factor(step, recipe) for step in range(1001)]
    assert factors[0] == pytest.approx(1 / 101)
    assert factors[:100] == sorted(factors[:100])
    assert factors[100] == 1.0
    assert factors[100:] == sorted(factors[100:], reverse=True)
    assert factors[550] == pytest.approx(0.55)
    assert factors[1000] == pytest.approx(0.1)


def test_learning_rate_falls_at_milestones():
    recipe = Recipe(steps=10, lr=1.0, warmup=0.1, milestones=(0.3, 0.7), gamma=0.2)
    factors = [learning_rate_factor(step, recipe) for step in range(11)]
    # One step is warm-up. 0.3 and 0.7 of 10 steps are steps 3 and 7.
    assert factors == pytest.approx([0.5, 1, 1, *[0.2] * 4, *[0.04] * 4])


def test_milestones_are_those_of_torch():
    recipe = Recipe(steps=20, lr=3.0, warmup=0, milestones=(0.2, 0.4, 0.6), gamma=0.2)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], recipe.lr)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 8, 12], gamma=0.2)
    for step in range(20):
        expected = optimizer.param_groups[0]["lr"]
        assert recipe.lr * learning_rate_factor(step, recipe) == pytest.approx(expected)
        optimizer.step()
        scheduler.step()


def test_json_keeps_what_is_not_finite():
    data = {"a": [1.5, float("inf")], "b": {"c": float("-inf")}, "d": None}
    text = to_json(data)
    json.loads(text, parse_constant=pytest.fail)
    assert from_json(text) == data
    assert str(from_json(to_json(float("nan")))) == "nan"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), replacing(path) as temporary:
        temporary.write_text("half" + "\ud800", encoding="utf-8")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_results_that_are_none_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="bandwise compare"):
        Results.load(tmp_path)
    for text in ("", "[]", '{"runs": 3}', "{"):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(ValueError, match="not a study's results"):
            Results.load(tmp_path)


def test_a_file_that_changes_while_the_study_runs_is_refused(task, tmp_path):
    """Otherwise one table would hold two versions of a task, under the hash of the first."""
    path = Path(task.rpartition(":")[0])
    edit = f"if step == 5:\n            open({str(path)!r}, 'a').write('#')\n        if self.delay"
    path.write_text(TASK.replace("if self.delay", edit))
    with pytest.raises(StudyError, match="changed while the study ran"):
        study(task, tmp_path / "out", "adamw,sgd", seeds=1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ('direction = "minimize"', "direction must be one of min, max, got 'minimize'"),
        ('splits = "val"', "must set splits to a tuple, got 'val'"),
        ('splits = ("test",)', r"splits must be \('val',\) or \('val', 'test'\)"),
        ("recipe = {}", "must set recipe to a Recipe, got {}"),
        ("recipe = Recipe(steps=4, lr=1.0, evals=0)", "evals must be at least 1, got 0"),
        ("name = None", "must set name to a str, got None"),
        ('metric = "accuracy"', "must return a dict with its metric 'accuracy', got {'loss'"),
        ("loss = lambda self, model, batch: model(batch[0])[:1, 0]", r"scalar, got shape \(1,\)"),
    ],
)
def test_a_task_that_breaks_the_protocol_is_told_so_early(tmp_path, change, says):
    file = tmp_path / "wrong.py"
    file.write_text(f"{TASK}\nclass Wrong(Line):\n    {change}\n")
    with pytest.raises((ValueError, StudyError), match=says):
        study(f"{file}:Wrong", tmp_path / "out", "adamw", seeds=1)
    assert not list((tmp_path / "out").glob("runs/*/checkpoint.pt"))


def test_an_optimizer_whose_state_could_not_be_resumed_is_refused(task, tmp_path):
    file = tmp_path / "odd.py"
    file.write_text(
        "import torch, fractions\n"
        "def odd(params, lr):\n"
        "    opt = torch.optim.SGD(params, lr)\n"
        "    opt.param_groups[0]['ratio'] = fractions.Fraction(1, 2)\n"
        "    return opt\n"
        "def without_lr(params, lr):\n"
        "    opt = torch.optim.SGD(params)\n"
        "    del opt.param_groups[0]['lr']\n"
        "    return opt\n"
    )
    with pytest.raises(ValueError, match="must hold tensors and plain data alone"):
        study(task, tmp_path / "out", f"{file}:odd")
    with pytest.raises(ValueError, match="have no lr to schedule"):
        study(task, tmp_path / "out", f"{file}:without_lr")


def test_a_batch_may_draw_from_any_generator_the_seed_covers(tmp_path):
    """Also numpy's and Python's global ones. Seeds stay paired, and torch's stream is unchanged."""
    file = tmp_path / "global.py"
    batch = (
        "import random, numpy as np; x = torch.tensor([[random.random(), np.random.rand(), 1.0]])"
    )
    file.write_text(
        f"{TASK}\nclass Global(Line):\n    def batch(self, seed, step):\n"
        f"        {batch}\n        return x, x[:, :1]\n"
    )
    results = study(f"{file}:Global", tmp_path / "out", "adamw,adamw:eps=1e-8", seeds=1)
    assert results.runs[0].training[-1]["train_loss"] == results.runs[1].training[-1]["train_loss"]


def generators():
    """The next numbers of the global generators, whose states are restored."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        drawn = [random.random(), np.random.rand(), torch.rand(()).item()]
        if torch.cuda.is_available():
            drawn.append(torch.rand((), device="cuda").item())
    random.setstate(python)
    np.random.set_state(numpy)
    return drawn


def test_a_study_leaves_the_caller_s_generators_as_they_were(task, tmp_path, monkeypatch):
    """It does not even read the state of CUDA's, because that would start CUDA."""
    before = generators()
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("CUDA is seeded"))
        patch.setattr(torch.cuda, "_lazy_init", lambda: pytest.fail("CUDA is started"))
        study(task, tmp_path / "out", "adamw", seeds=1)
    assert generators() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_study_on_a_gpu_leaves_the_caller_s_generators_as_they_were(tmp_path):
    before = generators()
    study("digits", tmp_path / "out", "adamw", seeds=1, steps=4, device="cuda")
    assert generators() == before


def test_a_training_needs_no_folder(task):
    """It takes the same steps as a stored run. A caller can give it other batches."""
    made = tasks.load(task)
    training = Training(made, "nsf", seed=3)
    losses = [training.train_step().item() for _ in range(4)]
    state = copy.deepcopy(training.state_dict())
    assert training.step == 4
    last = training.train_step().item()
    resumed = Training(made, "nsf", seed=3)
    resumed.load_state_dict(state)
    assert resumed.train_step().item() == last
    given = Training(made, "nsf", seed=3)
    assert [given.train_step(made.batch(3, k)).item() for k in (1, 2, 3, 4)] == losses
    assert given.evaluate("val").keys() == {"val_loss"}


@pytest.mark.parametrize("name", ["result.json", "metrics.jsonl"])
@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"null\n"])
def test_a_damaged_run_is_named(task, tmp_path, name, damage):
    study(task, tmp_path / "out", "adamw", seeds=1)
    (file,) = (tmp_path / "out").glob(f"runs/*/{name}")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(StudyError, match="is damaged") as caught:
        study(task, tmp_path / "out", "adamw", seeds=1)
    assert file.parent.name in str(caught.value)


@pytest.mark.parametrize("name", ["checkpoint.pt", "metrics.jsonl"])
def test_a_damaged_unfinished_run_is_named(task, tmp_path, name):
    with pytest.raises(StudyError):
        study(task, tmp_path / "out", "adamw", seeds=1, task_options={"fail_at": 20})
    (file,) = (tmp_path / "out").glob(f"runs/*/{name}")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(StudyError, match=rf"{name} is damaged"):
        study(task, tmp_path / "out", "adamw", seeds=1, task_options={"fail_at": 20})


def test_a_worker_that_is_killed_is_told(tmp_path):
    file = tmp_path / "killed.py"
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    file.write_text(
        f"{TASK}\nclass Killed(Line):\n    def batch(self, seed, step):\n        {kill}\n"
    )
    with pytest.raises(StudyError, match="a worker process was killed"):
        study(f"{file}:Killed", tmp_path / "out", "adamw", jobs=2)


def said_by(task, out, optimizers="adamw,sgd", **kwargs):
    """The text that a study prints."""
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    study(task, out, optimizers, console=console, **kwargs)
    return console.file.getvalue()


def test_an_edited_helper_starts_the_runs_anew_and_says_so(tmp_path, monkeypatch):
    """Also in a worker that has already imported it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "line.py").write_text("from scale_of_line import SCALE\n" + TASK.replace(
        '{"loss": (', '{"loss": SCALE * ('))  # fmt: skip
    task = f"{tmp_path}/line.py:Line"
    figures = []
    for scale in "148":
        (tmp_path / "scale_of_line.py").write_text(f"SCALE = {scale}\n")
        said = said_by(task, tmp_path / "out")
        figures.append(Results.load(tmp_path / "out").runs[0].final["val_loss"])
        assert "finished already" not in said
        older = {"1": None, "4": 4, "8": 8}[scale]
        if older:
            name = f"{tmp_path}/scale_of_line.py"
            assert f"{name} has changed: {older} older runs are left aside." in said
        else:
            assert "left aside" not in said
    assert figures[1] == pytest.approx(4 * figures[0])
    assert figures[2] == pytest.approx(8 * figures[0])
    assert "4 of 4 runs are finished already." in said_by(task, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "def batch(self, seed, step):\n        return {}['x']",
            r"^adamw, seed 0: {file}:Wrong: KeyError: 'x' \(wrong\.py, line 36\)$",
        ),
        (
            "def model(self):\n        return 1 / 0",
            r"^{file}:Wrong: ZeroDivisionError: .* line 36\)$",
        ),
        ("def model(self):\n        pass", r"model\(\) must return a torch\.nn\.Module, got None"),
        ("def loss(self, model, batch):\n        return 3.5", "loss must return a tensor, got 3.5"),
        (
            "def loss(self, model, batch):\n        return torch.zeros(())",
            "loss must depend on the weights: it has no gradient",
        ),
        (
            "def loss(self, model, batch):\n        return model(batch)",
            r"Wrong: TypeError: linear\(\)(.|\n)* \(wrong\.py, line 36\)$",
        ),
    ],
)
def test_an_error_in_a_task_is_told_without_internals(tmp_path, change, says):
    file = tmp_path / "wrong.py"
    file.write_text(f"{TASK}\nclass Wrong(Line):\n    {change}\n")
    with pytest.raises((TypeError, ValueError, StudyError)) as caught:
        study(f"{file}:Wrong", tmp_path / "out", "adamw", seeds=1)
    assert re.search(says.format(file=re.escape(str(file))), str(caught.value), re.MULTILINE)
    assert "Traceback" not in str(caught.value)
    assert "bandwise/study" not in str(caught.value)


def test_an_error_below_a_task_shows_the_frames_of_the_user_s_files(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "deeper_.py").write_text("def fail():\n    raise IndexError('far down')\n")
    file = tmp_path / "wrong.py"
    call = "def batch(self, seed, step):\n        import deeper_\n        deeper_.fail()"
    file.write_text(f"{TASK}\nclass Wrong(Line):\n    {call}\n")
    with pytest.raises(StudyError) as caught:
        study(f"{file}:Wrong", tmp_path / "out", "adamw", seeds=1)
    said = str(caught.value)
    assert "Wrong: IndexError: far down (deeper_.py, line 2)\n" in said
    assert re.findall(r'File ".*/(\w+\.py)", line (\d+)', said) == [
        ("wrong.py", "37"), ("deeper_.py", "2"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "optimizers", "says"),
    [
        (Recipe, "adamw", r"a task must be written as a text, .*file\.py:MyTask', got <class"),
        (
            "two-moons",
            [torch.optim.AdamW],
            r"an optimizer must be written as a text, .* got <",
        ),
        ("two-moons", torch.optim.AdamW, "optimizers must be a text or several, got <class"),
    ],
)
def test_objects_in_the_place_of_texts_are_refused(tmp_path, task, optimizers, says):
    with pytest.raises(TypeError, match=says):
        compare(task, optimizers, out=tmp_path / "out")


def test_all_runs_diverged_is_no_verdict_on_the_optimizers(task, tmp_path):
    results = study(task, tmp_path, "adamw,sgd", task_options={"nan_at": 8})
    assert results.comparisons[1].verdict == "all diverged"
    assert {run.steps for run in results.runs} == {8}


def test_a_setting_that_does_nothing_is_told(task, tmp_path):
    results = study(task, tmp_path, "adamw,adamw:eps=1e-8,adamw:eps=1e-7")
    verdicts = [row.verdict for row in results.comparisons]
    assert verdicts[:2] == ["baseline", "identical"]
    assert verdicts[2] != "identical"
    why = "Identical to adamw on every seed: did the setting do anything?"
    assert results.comparisons[1].why == why


def test_times_are_rough_unless_taken_alone(task, tmp_path):
    assert study(task, tmp_path / "alone", "adamw").timed_alone
    assert study(task, tmp_path / "alone", "adamw").timed_alone  # nothing was trained
    assert not study(task, tmp_path / "alone", "adamw,sgd").timed_alone
    assert study(task, tmp_path / "part", "adamw,sgd").timed_alone
    assert study(task, tmp_path / "part", "sgd").timed_alone
    assert not study(task, tmp_path / "part", "adamw,sgd").timed_alone  # adamw's times are unknown
    assert not study(task, tmp_path / "beside", "adamw", jobs=2).timed_alone
    task_that_fails_once = Path(task.rpartition(":")[0])
    once = f"if step == 20 and not Path({str(tmp_path / 'again')!r}).exists():"
    source = TASK.replace("if step == self.fail_at:", once)
    task_that_fails_once.write_text("from pathlib import Path\n" + source)
    with pytest.raises(StudyError, match="as asked for"):
        study(task, tmp_path / "cut", "adamw", seeds=1)
    (tmp_path / "again").touch()
    assert not study(task, tmp_path / "cut", "adamw", seeds=1).timed_alone


def test_the_report_of_another_study_is_not_replaced_silently(task, tmp_path):
    out = tmp_path / "out"
    assert "replaced" not in said_by(task, out)
    assert "replaced" not in said_by(task, out, seeds=3)
    command = Results.load(out).command
    said = said_by(task, out, lr=0.5)
    assert f"The report in {out} will be replaced. It is of: {command}\n" in said


@pytest.mark.parametrize(("every", "lines"), [(0.0, 4), (3600.0, 0)])
def test_without_a_terminal_a_run_says_how_far_it_is(task, tmp_path, monkeypatch, every, lines):
    """It prints a line at evaluations, but not more often than every half minute."""
    monkeypatch.setattr("bandwise.study.progress._LINE_SECONDS", every)
    monkeypatch.setattr("bandwise.study.progress._POLL_SECONDS", 0.02)
    said = said_by(task, tmp_path, "adamw", seeds=1, task_options={"delay": 0.04})
    found = re.findall(
        r"adamw, seed 0: step (\d+) of 24, train_loss [\d.e-]+, val_loss [\d.e-]+, "
        r"about 0:00:0\d left",
        said,
    )
    assert found == ["6", "12", "18", "24"][: len(found)]
    assert lines - 1 <= len(found) <= lines
    assert "[1/1] adamw, seed 0: train_loss" in said
