"""Find an optimizer's options: every optimizer gets the same budget, on seeds for tuning alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from bandwise.optim import _checks
from bandwise.study import spec
from bandwise.study.errors import locked
from bandwise.study.plan import configure
from bandwise.study.run import train
from bandwise.study.run_files import read_run

TUNING_SEEDS = (100,)
"""The seeds of a tuning. Those of a comparison are 0, 1, …"""

# These are drawn at random; later ones learn from them.
_RANDOM_TRIALS = 4


@dataclass(frozen=True)
class Range:
    """The range of an option: two positive numbers. Values are drawn on a logarithmic scale.

    Attributes:
        low, high: the ends.
        first: a value that is known to work. It is tried first.
    """

    low: float
    high: float
    first: float | None = None

    def __post_init__(self) -> None:
        _checks.number("a range's low", self.low)
        _checks.number("a range's high", self.high, low=self.low)
        if self.low <= 0:
            raise ValueError(f"a range's low must be above 0, got {self.low}")
        if self.first is not None:
            _checks.number("a range's first", self.first, low=self.low, high=self.high)


@dataclass(frozen=True)
class Tuned:
    """What a tuning found.

    Attributes:
        optimizer: the text with the best options, as ``bandwise.study.compare`` takes it.
        value: the task's metric on the validation split with these options, the mean over seeds.
        trials: the texts and values in the order of trials; inf or -inf for one that diverged.
    """

    optimizer: str
    value: float
    trials: list[tuple[str, float]]


def tune(
    task: str,
    optimizer: str,
    space: Mapping[str, Range],
    trials: int,
    *,
    out: str | Path,
    seeds: Sequence[int] = TUNING_SEEDS,
    steps: int | None = None,
    device: str = "cpu",
    task_options: Mapping[str, Any] | None = None,
) -> Tuned:
    """Try ``trials`` settings of an optimizer one after the other, and find the best.

    Optuna's tree-structured Parzen estimator chooses the settings; it is seeded. A trial is one run
    for each seed, each in its own folder. So the same call goes on where it was stopped, and a call
    with more trials goes further.

    Args:
        task: as in ``bandwise.study.compare``.
        optimizer: its text, with the options that are not tuned.
        space: the range of each option that is tuned.
        trials: how many settings are tried.
        out: the folder of the runs.
        seeds: the seeds of every setting.
        steps: optimizer steps in a run, as in ``compare``.
        device: where to train.
        task_options: keyword arguments of the task.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is wrong, or every trial diverged.
        StudyError: another command works in ``out``.
    """
    _checks.whole("trials", trials, low=1)
    if not space or not seeds:
        raise ValueError(f"space and seeds must not be empty, got {dict(space)} and {list(seeds)}")
    out = Path(out)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=0, n_startup_trials=_RANDOM_TRIALS)
    study = optuna.create_study(sampler=sampler)
    study.enqueue_trial({name: span.first for name, span in space.items() if span.first})
    tried: list[tuple[str, float]] = []

    def cost(trial: optuna.Trial) -> float:
        """The mean over seeds, with its sign changed if a large metric is good."""
        options = {
            name: trial.suggest_float(name, span.low, span.high, log=True)
            for name, span in space.items()
        }
        text = with_options(optimizer, options)
        made, configs = configure(task, [text], seeds, steps, device, task_options)
        values = []
        for config in configs:
            train(config, out / config.folder)
            values.append(read_run(config, out / config.folder).final[f"val_{made.metric}"])
        sign = 1 if made.direction == "min" else -1
        mean = float(np.mean(values))
        value = mean if math.isfinite(mean) else sign * math.inf
        tried.append((text, value))
        return sign * value

    with locked(out):
        study.optimize(cost, trials)
    best, value = tried[study.best_trial.number]
    if not math.isfinite(value):
        raise ValueError(f"every trial of {optimizer!r} diverged within space {dict(space)}")
    return Tuned(best, value, tried)


def with_options(optimizer: str, options: Mapping[str, float]) -> str:
    """An optimizer's text with further options, to three digits."""
    separator = "," if spec.parse(optimizer).options else ":"
    added = ",".join(f"{name}={value:.3g}" for name, value in options.items())
    return f"{optimizer}{separator}{added}"
