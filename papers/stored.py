"""Studies as plain data, small enough to be committed, and the statistics taken from them."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from bandwise.figures.words import number
from bandwise.files import read_json
from bandwise.study import Results
from bandwise.study.results import Run
from bandwise.study.statistics import LEVEL, bootstrap_interval, paired_p_value
from papers.paper import Data

_FIELDS = ("part", "settings", "command", "date", "versions", "data")


def read_part(path: Path) -> dict[str, Any]:
    """What is stored of a part of a paper.

    Raises:
        ValueError: it is not what was stored.
    """
    try:
        part: dict[str, Any] = read_json(path)
        missing = [name for name in _FIELDS if name not in part]
        if missing:
            raise ValueError(f"it has no {', '.join(missing)}")
        if not all(isinstance(part[name], dict) for name in ("versions", "data")):
            raise ValueError("its versions and data must have names")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path} does not hold a part's results: {error}; "
            "`python -m papers reproduce` with --again stores it anew"
        ) from error
    return part


def condensed(results: Results, *, curves: bool = True, lens: Sequence[str] = ()) -> dict[str, Any]:
    """What tables and figures need of a study, its numbers rounded to six digits.

    Args:
        results: the study.
        curves: whether training curves are kept beside the evaluations'.
        lens: the quantities of the lens whose rows are kept, without their lists.
    """
    return {
        "task": results.task,
        "metric": results.metric,
        "direction": results.direction,
        "steps": results.steps,
        "seeds": results.seeds,
        "command": results.command,
        "runs": [_condensed(run, results.metric, curves, lens) for run in results.runs],
    }


def _condensed(run: Run, metric: str, curves: bool, lens: Sequence[str]) -> dict[str, Any]:
    kept: dict[str, Any] = {
        "optimizer": run.optimizer,
        "seed": run.seed,
        "diverged": run.diverged,
        "steps": run.steps,
        "seconds_per_step": rounded(run.seconds_per_step),
        "final": rounded(run.final),
        "evals": _columns(run.evals, ("step", metric)),
    }
    if curves:
        kept["training"] = _columns(run.training, ("step", "train_loss"))
    if run.lens:
        kept["activations"] = _last(run.lens, "activations")
    if lens:
        kept["lens"] = [
            {key: value for key, value in row.items() if not isinstance(value, list)}
            for row in run.lens
            if row["quantity"] in lens
        ]
    return kept


def _last(rows: Sequence[Any], quantity: str) -> dict[str, float]:
    """The figures of the quantity's last row."""
    found = [row for row in rows if row["quantity"] == quantity]
    labels = ("step", "tensor", "quantity")
    return {k: rounded(v) for k, v in found[-1].items() if k not in labels} if found else {}


def _columns(rows: Sequence[dict[str, float]], names: Sequence[str]) -> dict[str, list[float]]:
    return {name: [rounded(row[name]) for row in rows if name in row] for name in names}


def rounded(data: Any) -> Any:
    """Plain data with its floats rounded to six digits."""
    return json.loads(json.dumps(data), parse_float=lambda text: float(f"{float(text):.6g}"))


Figure = Callable[[dict[str, Any]], float]
"""A figure of a stored run."""


def final(name: str) -> Figure:
    """The figure of that name at the end of a run."""
    return lambda run: float(run["final"][name])


@dataclass(frozen=True)
class Values:
    """A figure a seed, and what they say of its mean.

    Attributes:
        values: a seed each: infinite where its run diverged, NaN where there is no figure.
    """

    values: tuple[float, ...]

    @property
    def finite(self) -> bool:
        """Whether there is a figure for every seed, and some seed."""
        return bool(self.values) and all(map(math.isfinite, self.values))

    @property
    def diverged(self) -> int:
        """Seeds whose run did."""
        return sum(map(math.isinf, self.values))

    @property
    def n(self) -> int:
        """Seeds."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Over seeds."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def std(self) -> float:
        """Over seeds; NaN for one, or if there is not a figure for every seed."""
        return statistics.stdev(self.values) if self._testable else math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """95% bootstrap interval of the mean; ``None`` for one seed."""
        return bootstrap_interval(np.array(self.values)) if self._testable else None

    @property
    def _testable(self) -> bool:
        return self.finite and self.n > 1

    def above(self, value: float, tests: int = 1) -> bool:
        """Whether the mean is beyond chance above ``value``: the bootstrap interval is, and the
        t-test agrees at 5% over the number of tests, as for the verdicts of studies."""
        if not self._testable:
            return False
        beyond = np.array(self.values) - value
        low, _ = bootstrap_interval(beyond)
        return low > 0 and paired_p_value(beyond, tests) < 1 - LEVEL

    def below(self, value: float, tests: int = 1) -> bool:
        """As ``above``."""
        return self.negated().above(-value, tests)

    def negated(self) -> Values:
        """The other way round."""
        return Values(tuple(-value for value in self.values))

    def written(self, form: str = "+.4g", unit: str = "") -> str:
        """The mean, its 95% bootstrap interval and n: ``-0.12 [-0.30, +0.05], n = 4``."""
        if not self.finite:
            return f"no figure for every seed, n = {self.n}"
        text = number(self.mean, form) + unit
        if self.interval:
            low, high = self.interval
            text += f" [{number(low, form)}, {number(high, form)}]"
        return f"{text}, n = {self.n}"

    def percent(self) -> str:
        """As ``written``, of figures in percent."""
        return self.written("+.2f", "%")


@dataclass(frozen=True)
class Study:
    """A stored study."""

    data: Data

    @property
    def optimizers(self) -> list[str]:
        """In the order in which they were named, the baseline first."""
        return list(dict.fromkeys(run["optimizer"] for run in self.data["runs"]))

    def runs(self, optimizer: str) -> list[dict[str, Any]]:
        """The runs, by seed, of the one optimizer whose text is this, or starts so and goes on.

        Raises:
            LookupError: there is none, or there are several.
        """
        texts = self.optimizers
        found = [t for t in texts if t == optimizer] or [
            t for t in texts if t.startswith(optimizer)
        ]
        if len(found) != 1:
            raise LookupError(f"one optimizer must start with {optimizer!r}, got {sorted(found)}")
        runs = (run for run in self.data["runs"] if run["optimizer"] == found[0])
        return sorted(runs, key=lambda run: int(run["seed"]))

    def values(self, optimizer: str, figure: Figure) -> Values:
        """The figure of each of its runs."""
        return Values(
            tuple(math.inf if run["diverged"] else figure(run) for run in self.runs(optimizer))
        )

    def difference(self, optimizer: str, baseline: str, figure: Figure) -> Values:
        """By seed, in units of the figure."""
        both = (self.values(name, figure).values for name in (optimizer, baseline))
        # Nothing can be said of a difference from a run that diverged.
        return Values(
            tuple(a - b if math.isfinite(b) else math.nan for a, b in zip(*both, strict=True))
        )

    def change(self, optimizer: str, baseline: str, figure: Figure) -> Values:
        """By seed, in percent of the baseline's mean."""
        mean = self.values(baseline, figure).mean
        absolute = self.difference(optimizer, baseline, figure)
        # Not of each seed's own figure: where one is near zero it would decide everything.
        return Values(tuple(100 * value / mean if mean else math.nan for value in absolute.values))


def within(values: Sequence[float]) -> tuple[float, float]:
    """95% percentile bootstrap interval of a median, for many repetitions of a timing."""
    if len(set(values)) == 1:
        return values[0], values[0]
    result = scipy.stats.bootstrap((values,), np.median, method="percentile", rng=0)
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
