"""A study with the lens: the same training, a resumed log, figures of decisions."""

import json
from collections import defaultdict
from dataclasses import asdict, replace

import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

from bandwise import userfile
from bandwise.cli import app
from bandwise.lens import Lens
from bandwise.lens.quantities.decisions import with_agreement
from bandwise.study import DamagedRunError, Results, StudyError, compare
from bandwise.study.config import RunConfig
from bandwise.study.run import train
from bandwise.study.run_files import read_metrics, read_run
from bandwise.tasks import Recipe

MOONS = """
from torch import nn
from bandwise.tasks.two_moons import TwoMoons

class Moons(TwoMoons):
    def __init__(self, fail_at=None):
        super().__init__(width=8)
        self.fail_at = fail_at

    def model(self):
        return nn.Sequential(nn.Dropout(0.1), *super().model())

    def batch(self, seed, step):
        if step == self.fail_at:
            raise ArithmeticError("as asked for")
        return super().batch(seed, step)
"""
STEPS, EVALS = 80, 4


@pytest.fixture
def moons(tmp_path):
    path = tmp_path / "moons.py"
    path.write_text(MOONS)
    return f"{path}:Moons"


def config(task, optimizer="adamw", lens=True, **recipe):
    recipe = asdict(Recipe(**{"steps": STEPS, "lr": 0.01, "evals": EVALS, **recipe}))
    data = userfile.load(task).files if userfile.is_userfile(task) else {}
    return RunConfig(task, {}, data, optimizer, 0, recipe, "cpu", {}, lens)


def trained(configured, folder):
    train(configured, folder)
    return read_run(configured, folder)


def study(task, out, optimizers="adamw", **kwargs):
    kwargs = {"steps": STEPS, "seeds": 1, "jobs": 1, "console": Console(quiet=True), **kwargs}
    return compare(task, optimizers, out=out, **kwargs)


def steps_of(rows):
    steps = defaultdict(list)
    for row in rows:
        if row["tensor"] == "all":
            steps[row["quantity"]].append(row["step"])
    return dict(steps)


# --- records ------------------------------------------------------------------------------------


def test_what_a_run_records(moons, tmp_path):
    run = trained(config(moons), tmp_path)
    rows = Lens.read(tmp_path)
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    assert steps_of(rows) == {
        "decisions": [0, 20, 40, 60, 80],
        "boundary": [0, 20, 40, 60, 80],
        "spatial": [1, 20, 40, 60, 80],
        "weights": [1, 20, 40, 60, 80],
        "temporal": [32, 64, 80],
        "activations": [80],
    }
    assert run.lens == with_agreement([row for row in rows if row["tensor"] == "all"])
    last = [row for row in run.lens if row["quantity"] == "decisions"][-1]
    assert last["agreement"] == 1
    # The probe is the whole validation split here.
    assert last["accuracy"] == pytest.approx(1 - run.final["val_error"], abs=1e-6)
    assert last["loss"] == pytest.approx(run.final["val_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("steps", "evals", "boundary", "temporal", "weights"),
    [
        (300, 25, [0, 12, 24, 60, 132, 300], 6, [1, 60, 120, 180, 240, 300]),
        (400, 2, [0, 200, 400], 6, [1, 50, 100, 150, 200, 250, 300, 350, 400]),
        (30, 25, [0, 1, 2, 5, 13, 30], 0, [1, 7, 13, 19, 25, 30]),
        (3, 1, [0, 3], 0, [1, 3]),
    ],
)
def test_long_and_short_runs_have_a_useful_number_of_rows(
    moons, tmp_path, steps, evals, boundary, temporal, weights
):
    run = trained(config(moons, steps=steps, evals=evals), tmp_path)
    found = steps_of(run.lens)
    assert found["boundary"] == boundary
    assert len(found.get("temporal", [])) == temporal
    assert found["weights"] == weights


def test_a_task_without_a_probe_has_the_optimizers_rows_and_its_own_spectrum(tmp_path):
    """The errors of the sines by frequency are ordinary evaluations."""
    run = trained(config("sines"), tmp_path)
    assert steps_of(run.lens).keys() == {"spatial", "temporal", "weights"}
    assert all({f"val_error_k{k}" for k in (1, 2, 4, 8)} <= row.keys() for row in run.evals)


def test_a_run_that_diverges_is_recorded_to_its_end(moons, tmp_path):
    run = trained(config(moons, "sgd:lr=1e30"), tmp_path)
    assert run.diverged
    assert run.lens[-1]["step"] == run.steps < STEPS
    last = next(row for row in reversed(run.lens) if row["quantity"] == "decisions")
    assert last["loss"] is None
    assert "activations" not in steps_of(run.lens)


# --- the training itself ------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "smi-adamw:min_ndim=1", "nsf:p=cyclic(0.7,0.1,10)"])
def test_training_is_bitwise_the_same(moons, tmp_path, optimizer):
    results = []
    for lens in (False, True):
        folder = tmp_path / str(lens)
        run = trained(config(moons, optimizer, lens), folder)
        assert (folder / "lens.jsonl").exists() == bool(run.lens) == lens
        weights = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
        figures = run.evals, run.training, run.final
        results.append((figures, {name: weight.tolist() for name, weight in weights.items()}))
    assert results[0] == results[1]


@pytest.mark.parametrize("optimizer", ["adamw", "smi-adamw:refresh_every=5", "nsf:p=0.7"])
def test_a_run_cut_off_anywhere_leaves_the_same_log(moons, tmp_path, optimizer):
    """It stops before the first checkpoint, just after one, between two, and with full windows."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    configured = config(moons, optimizer)
    right = trained(configured, whole)
    for step in (1, 15, 21, 41, 45, 61, 80):
        with pytest.raises(ArithmeticError):
            train(replace(configured, task_options={"fail_at": step}), cut)
    assert trained(configured, cut).lens == right.lens
    assert (cut / "lens.jsonl").read_bytes() == (whole / "lens.jsonl").read_bytes()
    results = [json.loads((folder / "result.json").read_text()) for folder in (cut, whole)]
    for result in results:  # metrics.jsonl has times
        del result["crc32"], result["files"]["metrics.jsonl"]
    assert results[0] == results[1]

    # Killed between its last checkpoint and its result.
    (cut / "result.json").unlink()
    train(configured, cut)
    assert (cut / "lens.jsonl").read_bytes() == (whole / "lens.jsonl").read_bytes()


# --- a run's identity ---------------------------------------------------------------------------


def test_runs_from_before_the_lens_keep_their_folders():
    """The name is the same as in the version before the lens."""
    without = RunConfig(
        task="digits",
        task_options={"width": 8},
        data={"data": "abc"},
        optimizer="nsf:p=0.7",
        seed=3,
        recipe={"steps": 5, "lr": 0.1},
        device="cpu",
        versions={"torch": "2"},
    )
    assert without.folder == "runs/nsf-p=0.7-seed3-0655e16f6b"
    assert "lens" not in without.plain()
    watched = replace(without, lens=True)
    assert watched.folder != without.folder
    assert watched.plain() == {**without.plain(), "lens": True}


def test_a_study_with_and_without_the_lens(moons, tmp_path):
    out = tmp_path / "out"
    plain = study(moons, out)
    (run,) = study(moons, out, lens=True).runs
    assert len(list(out.glob("runs/*"))) == 2
    assert run.lens
    assert Results.load(out).runs == [run]
    assert Results.load(out).command.endswith(" --lens")
    config = json.loads((out / run.folder / "config.json").read_text())
    assert config["lens"] is run.config["lens"] is True

    (again,) = study(moons, out).runs
    assert again == plain.runs[0]
    assert again.lens == []
    assert "--lens" not in Results.load(out).command
    # Results of versions before the lens.
    stored = json.loads((out / "results.json").read_text())
    assert stored["runs"][0].pop("lens") == []
    del stored["crc32"]
    (out / "results.json").write_text(json.dumps(stored))
    assert Results.load(out).runs[0] == again
    with pytest.raises(TypeError, match="lens must be True or False, got 'yes'"):
        study(moons, out, lens="yes")


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b[: len(b) // 2],
        lambda b: b"\n".join(b.split(b"\n")[:-2]) + b"\n",  # fewer rows, all whole
        lambda b: b"x" + b[1:],
        lambda b: b.replace(b'"predicted"', b'"protected"'),
    ],
)
def test_a_damaged_log_of_a_finished_run_is_named(moons, tmp_path, damage):
    train(config(moons), tmp_path)
    path = tmp_path / "lens.jsonl"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DamagedRunError, match="is damaged"):
        read_run(config(moons), tmp_path)
    path.unlink()
    with pytest.raises(DamagedRunError, match=r"lens\.jsonl is damaged \(it is not there\)"):
        read_run(config(moons), tmp_path)


def test_a_damaged_log_of_an_unfinished_run_is_named(moons, tmp_path):
    failing = replace(config(moons), task_options={"fail_at": 50})
    with pytest.raises(ArithmeticError):
        train(failing, tmp_path)
    path = tmp_path / "lens.jsonl"
    path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(DamagedRunError, match=r"lens\.jsonl is damaged .* has 99 bytes, and had"):
        train(failing, tmp_path)


def test_a_wrong_probe_fails_a_study_at_once(moons, tmp_path):
    path = tmp_path / "moons.py"
    path.write_text(MOONS + "    def probe(self):\n        return self._data['train']\n")
    with pytest.raises(StudyError, match="1 to 512 labels, got 1200"):
        study(moons, tmp_path / "out", lens=True)
    assert not list((tmp_path / "out").glob("runs/*/checkpoint.pt"))
    assert read_metrics(next((tmp_path / "out" / "runs").iterdir()))[1] == []


# --- the user's own rows ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["temporal", "spatial", "weights", "decisions", "boundary", "activations"]
)
def test_an_old_log_with_figures_of_the_user_s_is_drawn(tmp_path, name):
    """Earlier versions let the user record any name, and crashed when they drew it."""
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Lens(model, optimizer, every=10, out=tmp_path):
        for _ in range(40):
            model.weight.grad = torch.randn(4, 4)
            optimizer.step()
    row = {"step": 40, "quantity": name, "tensor": "all", "accuracy": 0.5}
    with (tmp_path / "lens.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    result = CliRunner().invoke(app, ["lens", str(tmp_path)])
    assert result.exit_code == 0, result.exception
    assert (tmp_path / "lens.html").exists()
