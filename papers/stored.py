"""Store studies as plain data, small enough to be committed, and read them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bandwise.files import read_json
from bandwise.study import Results
from bandwise.study.paired import Sample, steps_to
from bandwise.study.results import Run
from papers.paper import Data

_FIELDS = ("part", "settings", "command", "date", "versions", "data")


def read_part(path: Path) -> dict[str, Any]:
    """Read the file of a part.

    Raises:
        ValueError: the file is damaged.
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
    """The part of a study that tables and figures need. Numbers are rounded to six digits.

    Args:
        results: the study.
        curves: whether to keep the training curves. The curves of evaluations are always kept.
        lens: the quantities of the lens whose rows are kept, without their lists.
    """
    return {
        "task": results.task,
        "metric": results.metric,
        "direction": results.direction,
        "steps": results.steps,
        "seeds": results.seeds,
        # Run as a module, the command finds the optimizers of this package in the clone.
        "command": f"python -m {results.command}",
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


Measure = Callable[[dict[str, Any]], float | None]
"""Takes a stored run and returns a figure, or ``None`` if the run has no such figure."""


def final(name: str) -> Measure:
    """The figure of that name at the end of a run."""
    return lambda run: float(run["final"][name])


@dataclass(frozen=True)
class Study:
    """A stored study."""

    data: Data

    @property
    def optimizers(self) -> list[str]:
        """The optimizers in the order of the command. The baseline is first."""
        return list(dict.fromkeys(run["optimizer"] for run in self.data["runs"]))

    def runs(self, optimizer: str) -> list[dict[str, Any]]:
        """The runs of one optimizer, by seed.

        Args:
            optimizer: the optimizer's text, or a beginning that no other text has.

        Raises:
            LookupError: no optimizer has this text, or several have it.
        """
        texts = self.optimizers
        found = [text for text in texts if text == optimizer] or [
            text for text in texts if text.startswith(optimizer)
        ]
        if len(found) != 1:
            raise LookupError(f"one optimizer must start with {optimizer!r}, got {sorted(found)}")
        runs = (run for run in self.data["runs"] if run["optimizer"] == found[0])
        return sorted(runs, key=lambda run: int(run["seed"]))

    def sample(self, optimizer: str, measure: Measure) -> Sample:
        """A figure of each of an optimizer's runs. A diverged run has none."""
        runs = self.runs(optimizer)
        return Sample(
            tuple(None if run["diverged"] else _finite(measure(run)) for run in runs),
            tuple(run["diverged"] for run in runs),
        )

    def difference(self, optimizer: str, baseline: str, measure: Measure) -> Sample:
        """A figure minus the baseline's, by seed."""
        return self.sample(optimizer, measure).minus(self.sample(baseline, measure))

    def change(self, optimizer: str, baseline: str, measure: Measure) -> Sample:
        """A figure minus the baseline's, by seed, in percent of the baseline's mean."""
        return self.sample(optimizer, measure).change_from(self.sample(baseline, measure))

    def steps_to_baseline(self, optimizer: str, baseline: str) -> Sample:
        """By seed, the first evaluated step whose metric is as good as the baseline's last."""
        metric, runs = self.data["metric"], self.runs(optimizer)
        targets = self.sample(baseline, final(metric))
        evals = [zip(run["evals"]["step"], run["evals"][metric], strict=True) for run in runs]
        return replace(
            steps_to(targets, evals, self.data["direction"]),
            diverged=tuple(run["diverged"] for run in runs),
            baseline_diverged=targets.diverged,
        )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
