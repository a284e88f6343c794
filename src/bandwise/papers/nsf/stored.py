"""What is kept of a study, small enough to be committed, and how two optimizers of it compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bandwise.papers.paper import Data
from bandwise.study import Results
from bandwise.study.statistics import LEVEL, bootstrap_interval, paired_p_value

Figure = Callable[[dict[str, Any]], float]
"""A figure of a stored run."""


def condensed(results: Results, lens: Sequence[str] = ()) -> dict[str, Any]:
    """A study's comparisons and the curve of every run, as plain data.

    Args:
        results: of the study.
        lens: the quantities of the lens whose rows are kept, without their lists.

    Returns:
        ``task``, ``metric``, ``direction``, ``steps``, ``seeds``, ``versions``; ``comparisons``,
        a row an optimizer; ``runs``, their evaluations as columns, ``step`` and the metric.
    """
    data: dict[str, Any] = {
        name: getattr(results, name)
        for name in ("task", "metric", "direction", "steps", "seeds", "versions")
    }
    data["comparisons"] = [asdict(row) for row in results.comparisons]
    data["runs"] = [
        {
            "optimizer": run.optimizer,
            "seed": run.seed,
            "diverged": run.diverged,
            "seconds_per_step": run.seconds_per_step,
            "final": run.final,
            "evals": {name: [row[name] for row in run.evals] for name in ("step", results.metric)},
            "lens": [
                {key: value for key, value in row.items() if not isinstance(value, list)}
                for row in run.lens
                if row["quantity"] in lens
            ],
        }
        for run in results.runs
    ]
    return data


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
        if self.n > 1:
            low, high = bootstrap_interval(np.array(self.values))
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


def final(name: str) -> Figure:
    """The figure of that name at a run's end."""
    return lambda run: float(run["final"][name])
