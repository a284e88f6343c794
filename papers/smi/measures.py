"""What the paper's tables measure of a stored run. It defines few of them; these are ours."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

from benchmarks.results import Case, Law, Row

from papers.paper import Data
from papers.smi.overhead import ADAMW as BASE
from papers.smi.overhead import AROUND
from papers.smi.runs import ADAMW
from papers.stored import Figure, Study

# Where of its 5,000 iterations the paper's baseline reached the thresholds of Table 7.
_TRAIN_AT, _VAL_AT = 1250 / 5000, 2200 / 5000
_LATE = 1000 / 5000
_SMOOTHED = 8


def late_variance(run: dict[str, Any]) -> float:
    """The variance of the logged training losses in the last fifth of the steps, the paper's last
    1,000 of 5,000. A logged loss is the mean over some steps."""
    steps, losses = run["training"]["step"], run["training"]["train_loss"]
    late = [x for step, x in zip(steps, losses, strict=True) if step > (1 - _LATE) * run["steps"]]
    return statistics.pvariance(late) if late else math.nan


def roughness(run: dict[str, Any]) -> float:
    """The mean distance between logged training losses that follow one another: the smoother the
    curve, the smaller. The paper has words in its place."""
    losses = run["training"]["train_loss"]
    return statistics.fmean(abs(b - a) for a, b in itertools.pairwise(losses))


def early_roughness(run: dict[str, Any]) -> float:
    """The same in the first fifth of the training."""
    losses = run["training"]["train_loss"]
    early = losses[: max(2, len(losses) // 5)]
    return statistics.fmean(abs(b - a) for a, b in itertools.pairwise(early))


def iterations_to(curve: str, threshold: float) -> Figure:
    """The first step at which a loss is below the threshold; NaN if it never is.

    Args:
        curve: ``"training"``, whose losses are averaged over the last eight logged, or ``"evals"``,
            between two of which a straight line is drawn.
        threshold: the loss.
    """

    def figure(run: dict[str, Any]) -> float:
        steps, losses = _curve(run, curve)
        for i, loss in enumerate(losses):
            if loss < threshold:
                if curve == "training" or i == 0:
                    return float(steps[i])
                share = (losses[i - 1] - threshold) / (losses[i - 1] - loss)
                return float(steps[i - 1] + share * (steps[i] - steps[i - 1]))
        return math.nan

    return figure


def thresholds(data: Data) -> tuple[float, float]:
    """The training and the validation loss that iterations are counted to, from the part ``runs``:
    the paper's, or the losses that our baseline has on average where the paper's reached its."""
    if data["thresholds"] is not None:
        train, val = data["thresholds"]
        return float(train), float(val)
    runs = Study(data["study"]).runs(ADAMW)
    return (
        statistics.fmean(_at(run, "training", _TRAIN_AT) for run in runs),
        statistics.fmean(_at(run, "evals", _VAL_AT) for run in runs),
    )


def weight(name: str) -> Figure:
    """A row of Tables 2 and 4 (``bandwise.lens.quantities.weights.model_figures``)."""
    return lambda run: float(run["weights"][name])


def activation(name: str) -> Figure:
    """A row of Table 3 (``bandwise.lens.quantities.activations.activation_figures``)."""
    return lambda run: float(run["activations"][name])


def added(size: dict[str, Any]) -> list[float]:
    """The time that SMI adds to a training step, in percent, round by round."""
    ours, base = size["seconds"][AROUND], size["seconds"][BASE]
    return [100 * (one / other - 1) for one, other in zip(ours, base, strict=True)]


def law(data: Data) -> Law:
    """The paper's (18), T = T_base (1 + γ ln P), fitted to the part ``overhead``."""
    return Law.fit(
        [
            Case(
                "",
                size["parameters"],
                [Row(name, size["seconds"][name]) for name in (BASE, AROUND)],
                [],
                finding=(AROUND, BASE),
            )
            for size in data["sizes"]
        ]
    )


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
    """The loss at the first point that is at least so far into the run."""
    steps, losses = _curve(run, curve)
    return next(x for step, x in zip(steps, losses, strict=True) if step >= share * run["steps"])
