"""The paired comparison, seed by seed: differences, intervals, p-values and verdicts."""

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
_ROUNDING = 1e-9  # in floating point, 0.003 - 0.002 differs from 0.002 - 0.001

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
        """The median, where a missing figure is larger than any other; ``None`` if it is one."""
        values = [math.inf if value is None else value for value in self.values]
        middle = statistics.median(values or [math.inf])
        return middle if math.isfinite(middle) else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95% t-interval of the mean; ``None`` for one seed, or without a mean."""
        return mean_interval(self._known) if self._testable else None

    @property
    def p_raw(self) -> float | None:
        """The p-value of the test that the mean is zero; ``None`` where ``interval`` is."""
        return p_value(self._known) if self._testable else None

    @property
    def _testable(self) -> bool:
        return self.complete and self.n > 1

    def above(self, value: float, tests: int = 1) -> bool:
        """Whether the mean lies above a value by more than chance, at 5% / ``tests``."""
        beyond = self.each(lambda known: known - value)
        p = beyond.p_raw
        return p is not None and (beyond.mean or 0) > 0 and tests * p < 1 - LEVEL

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
        """The difference in percent of the baseline's mean: 100 (ours - theirs) / mean(theirs)."""
        mean = baseline.mean
        return self.minus(baseline).each(lambda value: 100 * value / mean if mean else None)

    def ratio_to(self, baseline: Sample) -> Sample:
        """The ratio to a baseline, seed by seed: ours / theirs, where both are above zero."""
        return self._with(baseline, lambda a, b: a / b if min(a, b) > 0 else None)

    def bounded(self, bound: float) -> Sample:
        """The sample with a bound in the place of every missing figure."""
        pairs = zip(self.values, self.missing, strict=True)
        return replace(self, values=tuple(bound if gone else value for value, gone in pairs))

    def _with(self, baseline: Sample, function: Callable[[float, float], float | None]) -> Sample:
        pairs = zip(self.values, baseline.values, strict=True)
        values = tuple(None if a is None or b is None else function(a, b) for a, b in pairs)
        return Sample(values, self.diverged, baseline.diverged)

    def by_divergence(self) -> Literal["better", "worse"] | None:
        """Worse with more diverged runs than the baseline, better with fewer, else no verdict."""
        more = sum(self.diverged) - sum(self.baseline_diverged)
        return "worse" if more > 0 else "better" if more < 0 else None


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95% t-interval of the mean of at least two values."""
    n, mean = len(values), statistics.fmean(values)
    half = float(scipy.stats.t.ppf((1 + LEVEL) / 2, n - 1)) * statistics.stdev(values) / n**0.5
    return mean - half, mean + half


def p_value(values: Sequence[float]) -> float:
    """The t-test's p-value that the mean of at least two values is zero, not corrected.

    Equal values, as of errors that are counted, have no spread for a t-test. Their p-value is the
    chance that all of them have one sign.
    """
    sizes = np.abs(values)
    if np.ptp(values) <= _ROUNDING * sizes.max():
        return float(2.0 ** (1 - len(values))) if sizes.any() else 1.0
    return float(scipy.stats.ttest_1samp(values, 0).pvalue)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction for m p-values: the smallest times m, the next times m - 1, and so on.

    No corrected value is less than one before it. A ``None`` counts and stays.
    """
    found: list[float | None] = [None] * len(p_values)
    least = 0.0
    ranked = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    for rank, (p, place) in enumerate(ranked):
        found[place] = least = min(1.0, max(least, (len(p_values) - rank) * p))
    return found


def steps_to(targets: Sample, curves: Sequence[Curve], direction: Direction) -> Sample:
    """The first evaluated step, seed by seed, at which a metric is as good as a target.

    With the baseline's last values as targets, these are the steps to the baseline. A seed has none
    if it never reached its target, or has no target.
    """
    sign = 1 if direction == "min" else -1
    found: list[float | None] = []
    for target, curve in zip(targets.values, curves, strict=True):
        bound = math.nan if target is None else sign * target
        found.append(next((float(step) for step, value in curve if sign * value <= bound), None))
    return Sample(tuple(found))


def compare_runs(
    groups: Sequence[Sequence[Run]], metric: str, direction: Direction
) -> list[Comparison]:
    """Compare every group of runs with the first, the baseline.

    Args:
        groups: the runs of one optimizer each, all with the same seeds in the same order.
        metric: a key of ``Run.final``.
        direction: ``"min"`` if a small metric is good.
    """
    samples = [last_values(runs, metric) for runs in groups]
    differences = [sample.minus(samples[0]) for sample in samples]
    differences[0] = Sample(())
    p_values = [None, *holm([difference.p_raw for difference in differences[1:]])]
    rows = []
    for runs, ours, difference, p in zip(groups, samples, differences, p_values, strict=True):
        verdict, why = _judge(difference, direction, p)
        if runs is groups[0]:
            verdict, why = "baseline", "The others are compared with it."
        elif all(map(_same, runs, groups[0])):
            base = groups[0][0].optimizer
            verdict = "identical"
            why = f"Identical to {base} on every seed: did the setting do anything?"
        evals = [[(row["step"], row[metric]) for row in run.evals] for run in runs]
        steps = steps_to(samples[0], evals, direction)
        rows.append(
            Comparison(
                optimizer=runs[0].optimizer,
                n=ours.n,
                mean=math.nan if ours.mean is None else ours.mean,
                std=ours.std,
                difference=difference.mean,
                interval=difference.interval,
                p_raw=difference.p_raw,
                p_corrected=p,
                verdict=verdict,
                why=why,
                diverged=sum(ours.diverged),
                steps_to_baseline=steps.median if steps.complete else None,
                seconds_per_step=statistics.median(run.seconds_per_step for run in runs),
            )
        )
    return rows


def last_values(runs: Sequence[Run], metric: str) -> Sample:
    """A metric at the end of each run, in the order of the runs."""
    values = tuple(run.final[metric] if math.isfinite(run.final[metric]) else None for run in runs)
    pairs = zip(runs, values, strict=True)
    return Sample(values, tuple(run.diverged or value is None for run, value in pairs))


def _same(run: Run, other: Run) -> bool:
    """Whether two runs logged the same losses and figures, to the bit."""
    losses, others = ([row["train_loss"] for row in r.training] for r in (run, other))
    return not run.diverged and (run.final, run.evals, losses) == (other.final, other.evals, others)


def _judge(difference: Sample, direction: Direction, p: float | None) -> tuple[Verdict, str]:
    """Whether an optimizer differs from its baseline, and why; ``p`` is corrected."""
    n, mean, interval = difference.n, difference.mean, difference.interval
    if difference.any_diverged:
        ours, theirs = sum(difference.diverged), sum(difference.baseline_diverged)
        why = f"The loss became inf or NaN with {ours} of {n} seeds, the baseline's with {theirs}."
        if ours == theirs == n:
            return "all diverged", why
        return difference.by_divergence() or "no detectable difference", why
    if mean is None or interval is None or p is None:
        return "one seed: cannot tell", "A single seed cannot tell a difference from chance."
    test = f"(paired t-test: corrected p = {p:.2g})."
    if p < 1 - LEVEL:
        better = (mean < 0) == (direction == "min")
        return "better" if better else "worse", f"The seeds differ by more than chance {test}"
    # The interval is of this comparison alone. The p-value is corrected for all of them.
    beside = interval[0] > 0 or interval[1] < 0
    why = "So few seeds may differ this much by chance" if beside else "The interval includes zero"
    return "no detectable difference", f"{why} {test}"
