"""Tuning finds the best settings, resumes, and uses only its own seeds."""

import math
from types import SimpleNamespace

import pytest

from bandwise.study import run
from bandwise.study import tune as tuning
from bandwise.study.tune import Range, Tuned, tune, with_options

# The model is one number with a known best learning rate: 1 step of SGD from 4 on x².
TASK = """
import torch
from torch import nn
from bandwise.tasks import Recipe, Task

class Bowl(Task):
    name = "bowl"
    direction = "min"
    recipe = Recipe(steps=1, lr=0.1, warmup=0.0, grad_clip=None, evals=1)

    def __init__(self, gain=False):
        if gain:
            self.metric, self.direction = "gain", "max"

    def model(self):
        layer = nn.Linear(1, 1, bias=False)
        nn.init.constant_(layer.weight, 4.0)
        return layer

    def batch(self, seed, step):
        return torch.ones(1, 1)

    def loss(self, model, batch):
        return model(batch).square().sum()

    def evaluate(self, model, split):
        loss = model(torch.ones(1, 1)).square().item()
        return {"loss": loss, "gain": -loss}
"""
SPACE = {"lr": Range(0.01, 10.0)}


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "bowl.py"
    path.write_text(TASK)
    return f"{path}:Bowl"


@pytest.mark.parametrize("gain", [False, True])
def test_it_finds_the_best_rate(task, tmp_path, gain):
    """One step of SGD from 4 on x² gives 4 - 8 lr, which is 0 at lr = 1/2."""
    options = {"gain": gain}
    found = tune(task, "sgd:momentum=0", SPACE, 25, out=tmp_path / "out", task_options=options)
    assert len(found.trials) == 25
    lr = float(found.optimizer.removeprefix("sgd:momentum=0,lr="))
    assert lr == pytest.approx(0.5, rel=0.25)
    expected = (4 - 8 * lr) ** 2
    assert found.value == pytest.approx(-expected if gain else expected, rel=1e-4)
    assert found.value == (max if gain else min)(value for _, value in found.trials)


def test_what_is_known_to_do_is_tried_first(task, tmp_path):
    space = {"lr": Range(0.01, 10.0, first=0.5), "weight_decay": Range(0.01, 1.0)}
    first, *others = tune(task, "sgd", space, 4, out=tmp_path / "out").trials
    assert first[0].startswith("sgd:lr=0.5,weight_decay=")
    assert not any("lr=0.5," in text for text, _ in others)
    with pytest.raises(ValueError, match="a range's first must be at most 2, got 3"):
        Range(1, 2, first=3)


def test_one_that_was_stopped_goes_on_to_the_same_result(task, tmp_path, monkeypatch):
    whole = tune(task, "sgd", SPACE, 7, out=tmp_path / "whole")
    trained = []

    def stopped(config, folder):
        if not (folder / "result.json").exists():
            if len(trained) == 5:
                raise KeyboardInterrupt
            trained.append(config.optimizer)
        run.train(config, folder)

    monkeypatch.setattr(tuning, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        tune(task, "sgd", SPACE, 7, out=tmp_path / "cut")
    assert trained == [text for text, _ in whole.trials[:5]]
    trained.clear()
    assert tune(task, "sgd", SPACE, 7, out=tmp_path / "cut") == whole
    assert trained == [text for text, _ in whole.trials[5:]]
    trained.clear()
    assert tune(task, "sgd", SPACE, 4, out=tmp_path / "cut").trials == whole.trials[:4]
    assert trained == []


def test_its_seeds_are_no_comparisons(task, tmp_path):
    tune(task, "sgd", SPACE, 2, out=tmp_path / "out", seeds=(100, 101))
    seeds = sorted(p.name.split("seed")[1][:3] for p in (tmp_path / "out" / "runs").iterdir())
    assert seeds == ["100", "100", "101", "101"]
    assert tuning.TUNING_SEEDS == (100,)


def test_a_trial_that_diverges_is_not_chosen(task, tmp_path, monkeypatch):
    finals = iter([math.nan, 3.0, math.inf])
    monkeypatch.setattr(tuning, "train", lambda config, folder: None)
    monkeypatch.setattr(
        tuning, "read_run", lambda *_: SimpleNamespace(final={"val_loss": next(finals)})
    )
    found = tune(task, "sgd", SPACE, 3, out=tmp_path / "out")
    assert [value for _, value in found.trials] == [math.inf, 3.0, math.inf]
    assert found == Tuned(found.trials[1][0], 3.0, found.trials)
    finals = iter([math.nan])
    with pytest.raises(ValueError, match="every trial of 'sgd' diverged"):
        tune(task, "sgd", SPACE, 1, out=tmp_path / "out")


def test_texts():
    assert with_options("adamw", {"lr": 0.0123456, "weight_decay": 0.1}) == (
        "adamw:lr=0.0123,weight_decay=0.1"
    )
    assert with_options("nsf:p=0.7", {"lr": 1e-5}) == "nsf:p=0.7,lr=1e-05"


def test_bad_arguments(task, tmp_path):
    with pytest.raises(ValueError, match="trials must be at least 1, got 0"):
        tune(task, "sgd", SPACE, 0, out=tmp_path)
    with pytest.raises(ValueError, match="space and seeds must not be empty"):
        tune(task, "sgd", {}, 1, out=tmp_path)
    with pytest.raises(ValueError, match="low must be above 0, got 0"):
        Range(0, 1)
    with pytest.raises(ValueError, match="high must be at least 2"):
        Range(2, 1)
    with pytest.raises(ValueError, match="wat"):
        tune(task, "sgd", {"wat": Range(1, 2)}, 1, out=tmp_path)
