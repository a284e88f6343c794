"""Which differences are real: two optimizers compared seed by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy.stats

from bandwise.study.results import Comparison, Run, Verdict

LEVEL = 0.95
# 0.003 - 0.002 is not 0.002 - 0.001.
_ROUNDING = 1e-9


def compare_runs(
    groups: Sequence[Sequence[Run]], metric: str, direction: Literal["min", "max"]
) -> list[Comparison]:
    """Every group of runs against the first, the baseline.

    Args:
        groups: the runs of one optimizer each, all with the same seeds in the same order.
        metric: a key of ``Run.final``.
        direction: whether a good metric is small or large.
    """
    baseline, *others = groups
    return [
        _describe(baseline, baseline, metric, direction, tests=len(others)),
        *(_describe(group, baseline, metric, direction, tests=len(others)) for group in others),
    ]


def _describe(
    runs: Sequence[Run],
    baseline: Sequence[Run],
    metric: str,
    direction: Literal["min", "max"],
    tests: int,
) -> Comparison:
    values = np.array([run.final[metric] for run in runs])
    with np.errstate(invalid="ignore"):  # inf - inf
        differences = values - np.array([run.final[metric] for run in baseline])
    interval = p_value = None
    if runs is not baseline and len(runs) > 1 and np.isfinite(differences).all():
        interval = bootstrap_interval(differences)
        p_value = paired_p_value(differences, tests)
    finite = np.isfinite(values).all()
    verdict, why = _judge(runs, baseline, differences, interval, p_value, direction)
    return Comparison(
        optimizer=runs[0].optimizer,
        n=len(runs),
        mean=float(values.mean()) if finite else math.nan,
        std=float(values.std(ddof=1)) if len(runs) > 1 and finite else None,
        difference=None if runs is baseline else float(differences.mean()),
        interval=interval,
        p_value=p_value,
        verdict=verdict,
        why=why,
        diverged=sum(run.diverged for run in runs),
        steps_to_baseline=_steps_to_baseline(runs, baseline, metric, direction),
        seconds_per_step=float(np.median([run.seconds_per_step for run in runs])),
    )


def _same(run: Run, other: Run) -> bool:
    """Whether all that two runs have logged of their losses and figures is equal, to the bit."""
    losses, others = ([row["train_loss"] for row in r.training] for r in (run, other))
    return not run.diverged and (run.final, run.evals, losses) == (other.final, other.evals, others)


def bootstrap_interval(differences: np.ndarray) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of the mean."""
    if np.ptp(differences) == 0:
        return float(differences[0]), float(differences[0])
    result = scipy.stats.bootstrap(
        (differences,), np.mean, confidence_level=LEVEL, method="percentile", rng=0
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def paired_p_value(differences: np.ndarray, tests: int) -> float:
    """The paired t-test's p-value that the mean is zero, times the number of tests (Bonferroni).

    Differences that are all the same, as of errors that are counted, have no spread for a t-test:
    theirs is the chance that all have one sign.
    """
    if np.ptp(differences) <= _ROUNDING * np.abs(differences).max():
        p_value = 2.0 ** (1 - len(differences)) if differences.any() else 1.0
    else:
        p_value = float(scipy.stats.ttest_1samp(differences, 0).pvalue)
    return min(1.0, tests * p_value)


def _judge(
    runs: Sequence[Run],
    baseline: Sequence[Run],
    differences: np.ndarray,
    interval: tuple[float, float] | None,
    p_value: float | None,
    direction: Literal["min", "max"],
) -> tuple[Verdict, str]:
    n = len(runs)
    if runs is baseline:
        return "baseline", "The others are compared with it."
    if all(map(_same, runs, baseline)):
        name = baseline[0].optimizer
        return "identical", f"Identical to {name} on every seed: did the setting do anything?"
    diverged, baseline_diverged = (sum(r.diverged for r in group) for group in (runs, baseline))
    if diverged == baseline_diverged == n:
        return "all diverged", "The loss became inf or NaN with every seed, the baseline's too."
    if diverged and baseline_diverged:
        return (
            "no detectable difference",
            f"The loss became inf or NaN with {diverged} of {n} seeds, "
            f"the baseline's with {baseline_diverged}.",
        )
    if diverged:
        return "worse", f"The loss became inf or NaN with {diverged} of {n} seeds."
    if baseline_diverged:
        return "better", f"The baseline's loss became inf or NaN with {baseline_diverged} seeds."
    if interval is None or p_value is None:
        return "one seed: cannot tell", "A single seed cannot tell a difference from chance."
    # With few seeds the bootstrap interval alone is too narrow: of three equal methods' seeds one
    # in four has all differences on one side. The t-test knows how few there are.
    excludes_zero = interval[0] > 0 or interval[1] < 0
    if not excludes_zero:
        why = f"The interval includes zero (paired t-test: p = {p_value:.2g})."
        return "no detectable difference", why
    if p_value >= 1 - LEVEL:
        why = f"So few seeds may differ this much by chance (paired t-test: p = {p_value:.2g})."
        return "no detectable difference", why
    better = (differences.mean() < 0) == (direction == "min")
    why = f"The interval excludes zero and the paired t-test agrees (p = {p_value:.2g})."
    return "better" if better else "worse", why


def _steps_to_baseline(
    runs: Sequence[Run],
    baseline: Sequence[Run],
    metric: str,
    direction: Literal["min", "max"],
) -> float | None:
    steps = []
    for run, reference in zip(runs, baseline, strict=True):
        target = reference.final[metric]
        if not math.isfinite(target):
            return None
        sign = 1 if direction == "min" else -1
        reached = [row["step"] for row in run.evals if sign * row[metric] <= sign * target]
        steps.append(reached[0] if reached else math.inf)
    median = float(np.median(steps))
    return median if math.isfinite(max(steps)) else None
