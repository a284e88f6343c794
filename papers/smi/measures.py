"""The measures of a stored run for claims and tables.

The paper defines few of its measures. The other definitions here are ours.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.results import Case, Law, Row

from bandwise.study.paired import Sample
from papers.paper import Data
from papers.smi.parts.overhead import ALONE, WITHIN_SMI
from papers.smi.parts.runs import ADAMW
from papers.stored import Measure, Study

# The shares of its 5,000 iterations at which the paper's baseline reached Table 7's thresholds.
_TRAIN_AT, _VAL_AT = 1250 / 5000, 2200 / 5000
_LATE = 1000 / 5000
_SMOOTHED = 8


def best_val(run: dict[str, Any]) -> float:
    """The smallest validation loss of a run's evaluations."""
    return float(min(run["evals"]["val_loss"]))


def late_variance(run: dict[str, Any]) -> float | None:
    """The variance of the logged training losses in the last fifth of the steps.

    The paper takes the last 1,000 of 5,000 steps. A logged loss is the mean over several steps.
    """
    steps, losses = run["training"]["step"], run["training"]["train_loss"]
    late = [x for step, x in zip(steps, losses, strict=True) if step > (1 - _LATE) * run["steps"]]
    return statistics.pvariance(late) if late else None


def roughness(run: dict[str, Any]) -> float:
    """The mean distance between one logged training loss and the next; small on a smooth curve.

    The paper gives no formula for smoothness.
    """
    return _mean_distance(run["training"]["train_loss"])


def early_roughness(run: dict[str, Any]) -> float:
    """The roughness of the first fifth of the training."""
    losses = run["training"]["train_loss"]
    return _mean_distance(losses[: max(2, len(losses) // 5)])


def _mean_distance(losses: Sequence[float]) -> float:
    return statistics.fmean(abs(b - a) for a, b in itertools.pairwise(losses))


def iterations_to(curve: str, threshold: float) -> Measure:
    """The first step at which a loss is below the threshold.

    Args:
        curve: ``"training"`` takes the mean of the last eight logged losses. ``"evals"`` draws a
            straight line between two evaluations.
        threshold: the loss.
    """

    def step(run: dict[str, Any]) -> float | None:
        steps, losses = _curve(run, curve)
        for i, loss in enumerate(losses):
            if loss < threshold:
                if curve == "training" or i == 0:
                    return float(steps[i])
                share = (losses[i - 1] - threshold) / (losses[i - 1] - loss)
                return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))
        return None

    return step


def thresholds(data: Data) -> tuple[float, float]:
    """The training and the validation loss at which counts of iterations end.

    They are the paper's thresholds, or the mean losses of our baseline at the shares of training
    where the paper's baseline reached them.

    Args:
        data: the part ``runs``.
    """
    if data["thresholds"] is not None:
        train, val = data["thresholds"]
        return float(train), float(val)
    runs = Study(data["study"]).runs(ADAMW)
    return (
        statistics.fmean(_at(run, "training", _TRAIN_AT) for run in runs),
        statistics.fmean(_at(run, "evals", _VAL_AT) for run in runs),
    )


def weight(name: str) -> Measure:
    """A figure of Tables 2 and 4 (``papers.smi.parts.runs.model_figures``)."""
    return lambda run: float(run["weights"][name])


def activation(name: str) -> Measure:
    """A figure of Table 3 (``bandwise.lens.quantities.activations.activation_figures``)."""
    return lambda run: float(run["activations"][name])


def added(size: dict[str, Any]) -> list[float]:
    """The time that SMI adds to a training step, in percent, round by round."""
    ours, base = size["seconds"][WITHIN_SMI], size["seconds"][ALONE]
    return [100 * (one / other - 1) for one, other in zip(ours, base, strict=True)]


def law(data: Data) -> Law:
    """The paper's (18), T = T_base (1 + γ ln P), fitted to the part ``overhead``."""
    return Law.fit(
        [
            Case(
                "",
                size["parameters"],
                [Row(name, size["seconds"][name]) for name in (ALONE, WITHIN_SMI)],
                [],
                finding=(WITHIN_SMI, ALONE),
            )
            for size in data["sizes"]
        ]
    )


def mean_square(samples: Sequence[Sample]) -> Sample:
    """The mean square of several figures, by seed.

    Under noise alone its expected value does not depend on the number of figures. A range would
    grow with the number.
    """
    rows = zip(*(sample.values for sample in samples), strict=True)
    return Sample(tuple(_mean_square(row) for row in rows))


def _mean_square(figures: Sequence[float | None]) -> float | None:
    known = [figure**2 for figure in figures if figure is not None]
    return statistics.fmean(known) if len(known) == len(figures) else None


def _curve(run: dict[str, Any], curve: str) -> tuple[list[float], list[float]]:
    columns = run[curve]
    steps = columns["step"]
    losses = next(values for name, values in columns.items() if name != "step")
    if curve == "training":
        losses = [
            statistics.fmean(losses[max(0, i + 1 - _SMOOTHED) : i + 1]) for i in range(len(losses))
        ]
    return steps, losses


def _at(run: dict[str, Any], curve: str, share: float) -> float:
    """The loss at the first logged point after a share of the run."""
    steps, losses = _curve(run, curve)
    return next(x for step, x in zip(steps, losses, strict=True) if step >= share * run["steps"])
