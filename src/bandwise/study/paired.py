"""The paired comparison: two optimizers, seed by seed.

A study's table, its report and the papers' claims take their differences, intervals, p-values and
verdicts from here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy.stats

from bandwise.study.results import Comparison, Run, Verdict

LEVEL = 0.95
# In floating point, 0.003 - 0.002 differs from 0.002 - 0.001.
_ROUNDING = 1e-9

Direction = Literal["min", "max"]
Curve = Iterable[tuple[float, float]]
"""A metric over the training: pairs of a step and the metric's value there."""


@dataclass(frozen=True)
class Sample:
    """A figure by seed: of one optimizer, or of its difference from a baseline.

    Masks mark the runs that diverged. A figure that a run does not have is ``None``: for example
    the step at which a loss was reached, where it never was. No infinity or NaN stands for either.

    Attributes:
        values: one for each seed, in the order of the seeds; ``None`` where there is no figure.
        diverged: for each seed, whether the optimizer's run diverged; by default none did.
        baseline_diverged: for each seed, whether the baseline's run diverged; by default none did.

    Raises:
        ValueError: a mask has another length than ``values``, or a value is not finite.
    """

    values: tuple[float | None, ...]
    diverged: tuple[bool, ...] = ()
    baseline_diverged: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        for name in ("diverged", "baseline_diverged"):
            mask = getattr(self, name) or (False,) * self.n
            if len(mask) != self.n:
                raise ValueError(f"{name} must have {self.n} entries, got {len(mask)}")
            object.__setattr__(self, name, mask)
        if not all(math.isfinite(value) for value in self._known):
            raise ValueError(f"values must be finite or None, got {self.values}")

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.values)

    @property
    def _known(self) -> tuple[float, ...]:
        return tuple(value for value in self.values if value is not None)

    @property
    def missing(self) -> tuple[bool, ...]:
        """For each seed, whether a run that did not diverge has no figure."""
        masks = zip(self.values, self.diverged, self.baseline_diverged, strict=True)
        return tuple(value is None and not (a or b) for value, a, b in masks)

    @property
    def any_diverged(self) -> bool:
        """Whether any run diverged, of the optimizer or of the baseline."""
        return any(self.diverged) or any(self.baseline_diverged)

    @property
    def complete(self) -> bool:
        """Whether there is a seed, and every seed has a figure."""
        return bool(self.values) and None not in self.values

    @property
    def mean(self) -> float | None:
        """The mean over seeds; ``None`` unless every seed has a figure."""
        return statistics.fmean(self._known) if self.complete else None

    @property
    def std(self) -> float | None:
        """The standard deviation over seeds (n - 1); ``None`` for one seed, or without a mean."""
        return statistics.stdev(self._known) if self._testable else None

    @property
    def median(self) -> float | None:
        """The median over seeds, where a missing figure counts as larger than any other.

        ``None`` if that puts a missing figure in the middle.
        """
        ranked = sorted(math.inf if value is None else value for value in self.values)
        middle = statistics.median(ranked) if ranked else math.inf
        return middle if math.isfinite(middle) else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of the mean; ``None`` for one seed, or without a mean."""
        return mean_interval(self._known) if self._testable else None

    @property
    def p_value(self) -> float | None:
        """The p-value of the test that the mean is zero, for one test alone.

        ``None`` for one seed, or without a mean.
        """
        return p_value(self._known) if self._testable else None

    @property
    def _testable(self) -> bool:
        return self.complete and self.n > 1

    def above(self, value: float, tests: int = 1) -> bool:
        """Whether the mean lies above a value by more than chance.

        Two conditions must hold: the 95% interval lies above the value, and the p-value times the
        number of tests (Bonferroni) is below 5%.

        Args:
            value: what the mean is compared with, in the figure's unit.
            tests: the number of tests that are made at once.
        """
        if not self._testable:
            return False
        beyond = [known - value for known in self._known]
        return mean_interval(beyond)[0] > 0 and tests * p_value(beyond) < 1 - LEVEL

    def below(self, value: float, tests: int = 1) -> bool:
        """Whether the mean lies below a value by more than chance: the mirror of ``above``."""
        return self.negated().above(-value, tests)

    def each(self, function: Callable[[float], float | None]) -> Sample:
        """The sample with a function applied to every figure; the masks stay."""
        values = tuple(None if value is None else function(value) for value in self.values)
        return replace(self, values=values)

    def negated(self) -> Sample:
        """The sample with every figure's sign changed."""
        return self.each(lambda value: -value)

    def minus(self, baseline: Sample) -> Sample:
        """The difference from a baseline, seed by seed: ours - theirs, in the figure's unit."""
        return self._with(baseline, lambda ours, theirs: ours - theirs)

    def change_from(self, baseline: Sample) -> Sample:
        """The difference from a baseline, seed by seed: 100 (ours - theirs) / mean(theirs).

        The unit is percent of the baseline's mean. Each seed's own figure is no good unit: one that
        is near zero would decide everything.
        """
        mean = baseline.mean
        return self.minus(baseline).each(lambda value: 100 * value / mean if mean else None)

    def ratio_to(self, baseline: Sample) -> Sample:
        """The ratio to a baseline, seed by seed: ours / theirs.

        A seed has none if either figure is missing, zero or negative.
        """
        return self._with(
            baseline, lambda ours, theirs: ours / theirs if min(ours, theirs) > 0 else None
        )

    def bounded(self, bound: float) -> Sample:
        """The sample with a bound in the place of every missing figure."""
        pairs = zip(self.values, self.missing, strict=True)
        return replace(self, values=tuple(bound if gone else value for value, gone in pairs))

    def _with(self, baseline: Sample, function: Callable[[float, float], float | None]) -> Sample:
        pairs = zip(self.values, baseline.values, strict=True)
        values = tuple(None if a is None or b is None else function(a, b) for a, b in pairs)
        return Sample(values, self.diverged, baseline.diverged)

    def by_divergence(self) -> Literal["better", "worse"] | None:
        """The verdict by the number of runs that diverged.

        An optimizer with more diverged runs than its baseline is worse, one with fewer is better.
        Equal numbers give no verdict.
        """
        ours, theirs = sum(self.diverged), sum(self.baseline_diverged)
        if ours == theirs:
            return None
        return "worse" if ours > theirs else "better"


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of the mean of at least two values."""
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    result = scipy.stats.bootstrap(
        (np.asarray(values),), np.mean, confidence_level=LEVEL, method="percentile", rng=0
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def p_value(values: Sequence[float]) -> float:
    """The t-test's p-value that the mean of at least two values is zero.

    Equal values, as of errors that are counted, have no spread for a t-test. Their p-value is the
    chance that all of them have one sign.
    """
    sizes = np.abs(values)
    if np.ptp(values) <= _ROUNDING * sizes.max():
        return float(2.0 ** (1 - len(values))) if sizes.any() else 1.0
    return float(scipy.stats.ttest_1samp(values, 0).pvalue)


def steps_to(targets: Sample, curves: Sequence[Curve], direction: Direction) -> Sample:
    """The first evaluated step, seed by seed, at which a metric is as good as a target.

    With the baseline's last values as targets, these are the steps to the baseline.

    Args:
        targets: for each seed, the value to reach.
        curves: for each seed, the evaluations of a run.
        direction: ``"min"`` if a small metric is good.

    Returns:
        The steps. A seed has none if it never reached its target, or has no target.
    """
    sign = 1 if direction == "min" else -1
    steps = []
    for target, curve in zip(targets.values, curves, strict=True):
        reached = (
            float(step)
            for step, value in curve
            if target is not None and sign * value <= sign * target
        )
        steps.append(next(reached, None))
    return Sample(tuple(steps))


def compare_runs(
    groups: Sequence[Sequence[Run]], metric: str, direction: Direction
) -> list[Comparison]:
    """Compare every group of runs with the first, the baseline.

    Args:
        groups: the runs of one optimizer each, all with the same seeds in the same order.
        metric: a key of ``Run.final``.
        direction: ``"min"`` if a small metric is good.
    """
    baseline = groups[0]
    return [_compare(runs, baseline, metric, direction, tests=len(groups) - 1) for runs in groups]


def _compare(
    runs: Sequence[Run], baseline: Sequence[Run], metric: str, direction: Direction, tests: int
) -> Comparison:
    ours, theirs = last_values(runs, metric), last_values(baseline, metric)
    difference = Sample(()) if runs is baseline else ours.minus(theirs)
    evals = [[(row["step"], row[metric]) for row in run.evals] for run in runs]
    steps = steps_to(theirs, evals, direction)
    verdict: Verdict
    if runs is baseline:
        verdict, why = "baseline", "The others are compared with it."
    elif all(map(_same, runs, baseline)):
        verdict, why = (
            "identical",
            (f"Identical to {baseline[0].optimizer} on every seed: did the setting do anything?"),
        )
    else:
        verdict, why = judge(difference, direction, tests)
    p = difference.p_value
    return Comparison(
        optimizer=runs[0].optimizer,
        n=ours.n,
        mean=math.nan if ours.mean is None else ours.mean,
        std=ours.std,
        difference=difference.mean,
        interval=difference.interval,
        p_value=None if p is None else min(1.0, tests * p),
        verdict=verdict,
        why=why,
        diverged=sum(ours.diverged),
        steps_to_baseline=steps.median if steps.complete else None,
        seconds_per_step=float(np.median([run.seconds_per_step for run in runs])),
    )


def last_values(runs: Sequence[Run], metric: str) -> Sample:
    """A metric at the end of each run, in the order of the runs."""
    values = tuple(run.final[metric] if math.isfinite(run.final[metric]) else None for run in runs)
    diverged = zip(runs, values, strict=True)
    return Sample(values, tuple(run.diverged or value is None for run, value in diverged))


def _same(run: Run, other: Run) -> bool:
    """Whether two runs logged the same losses and figures, to the bit."""
    losses, others = ([row["train_loss"] for row in r.training] for r in (run, other))
    return not run.diverged and (run.final, run.evals, losses) == (other.final, other.evals, others)


def judge(difference: Sample, direction: Direction, tests: int = 1) -> tuple[Verdict, str]:
    """Say in words whether an optimizer differs from its baseline, and why.

    Args:
        difference: by seed, of the metric that is compared.
        direction: ``"min"`` if a small metric is good.
        tests: the number of optimizers that are compared with the baseline.
    """
    n = difference.n
    if difference.any_diverged:
        ours, theirs = sum(difference.diverged), sum(difference.baseline_diverged)
        why = f"The loss became inf or NaN with {ours} of {n} seeds, the baseline's with {theirs}."
        if ours == theirs == n:
            return "all diverged", why
        return difference.by_divergence() or "no detectable difference", why
    p = difference.p_value
    if p is None:
        return "one seed: cannot tell", "A single seed cannot tell a difference from chance."
    p = min(1.0, tests * p)
    rises, falls = difference.above(0, tests), difference.below(0, tests)
    if rises or falls:
        why = f"The interval excludes zero and the paired t-test agrees (p = {p:.2g})."
        return "better" if falls == (direction == "min") else "worse", why
    low, high = difference.interval or (0.0, 0.0)
    # With few seeds the bootstrap interval alone is too narrow: of three equal methods' seeds one
    # in four has all differences on one side. The t-test knows how few there are.
    if low > 0 or high < 0:
        why = f"So few seeds may differ this much by chance (paired t-test: p = {p:.2g})."
    else:
        why = f"The interval includes zero (paired t-test: p = {p:.2g})."
    return "no detectable difference", why
