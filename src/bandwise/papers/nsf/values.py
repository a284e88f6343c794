"""Figures of stored studies, and how two optimizers of one compare."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bandwise.papers.paper import Data
from bandwise.papers.stored import Figure
from bandwise.study.statistics import LEVEL, bootstrap_interval, paired_p_value


@dataclass(frozen=True)
class Values:
    """A figure a seed, and what they say of its mean."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """Seeds."""
        return len(self.values)

    @property
    def finite(self) -> bool:
        """Whether every seed has one."""
        return bool(self.values) and all(map(math.isfinite, self.values))

    @property
    def mean(self) -> float:
        """Over seeds."""
        return float(np.mean(self.values)) if self.finite else math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% bootstrap interval of the mean; ``None`` for one seed."""
        return bootstrap_interval(np.array(self.values)) if self.finite and self.n > 1 else None

    def above(self, value: float) -> bool:
        """Whether the mean is beyond chance: by the bootstrap interval and by the t-test, as in
        the verdicts of studies."""
        if not self.finite or self.n < 2:
            return False
        beyond = np.array(self.values) - value
        return bootstrap_interval(beyond)[0] > 0 and paired_p_value(beyond, tests=1) < 1 - LEVEL

    def below(self, value: float) -> bool:
        """As :meth:`above`."""
        return Values(tuple(-v for v in self.values)).above(-value)

    def written(self, form: str = "+.4g") -> str:
        """The mean, its 95% bootstrap interval and n."""
        if not self.finite:
            return f"no figure for every seed, n = {self.n}"
        text = format(self.mean, form)
        if self.interval:
            low, high = self.interval
            text += f" [{format(low, form)}, {format(high, form)}]"
        return f"{text}, n = {self.n}"


def runs_of(study: Data, optimizer: str) -> list[dict[str, Any]]:
    """The runs of the one optimizer whose text starts so and then ends, or goes on with options.

    Raises:
        LookupError: there is none, or there are several.
    """
    texts = {run["optimizer"] for run in study["runs"]}
    found = [t for t in texts if t == optimizer] or [t for t in texts if t.startswith(optimizer)]
    if len(found) != 1:
        raise LookupError(f"one optimizer must start with {optimizer!r}, got {sorted(found)}")
    runs = (run for run in study["runs"] if run["optimizer"] == found[0])
    return sorted(runs, key=lambda run: int(run["seed"]))


def values(study: Data, optimizer: str, figure: Figure) -> Values:
    """The figure of an optimizer's runs, by seed; infinite where one diverged."""
    runs = runs_of(study, optimizer)
    return Values(tuple(math.inf if run["diverged"] else figure(run) for run in runs))


def differences(study: Data, optimizer: str, baseline: str, figure: Figure) -> Values:
    """The figure less the baseline's, by seed."""
    both = (values(study, name, figure).values for name in (optimizer, baseline))
    return Values(tuple(a - b for a, b in zip(*both, strict=True)))


def rate_slope(run: dict[str, Any]) -> float:
    """How the step of a coordinate goes with how often its gradient changes sign, both as
    logarithms: below 0 slow coordinates are favoured. The mean over the run's windows."""
    rows = [row["rate_slope"] for row in run["lens"] if row["quantity"] == "temporal"]
    known = [row for row in rows if row is not None]
    return float(np.mean(known)) if known else math.nan
