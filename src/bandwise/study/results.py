"""The results of a study, as plain objects that go to JSON and back."""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bandwise.lens import Row
from bandwise.study.files import read_json, replacing, write_json

Verdict = Literal[
    "baseline",
    "better",
    "worse",
    "no detectable difference",
    "one seed: cannot tell",
    "identical",
    "all diverged",
]


@dataclass(frozen=True)
class Run:
    """One training run: an optimizer with one seed.

    Attributes:
        optimizer: the optimizer's label, as the user wrote it.
        seed: seed of the initial weights, batches and dropout.
        diverged: whether the loss became inf or NaN. The run stopped there.
        steps: optimizer steps taken.
        final: the figures at the end: ``train_loss``, ``val_loss`` and the like, and ``test_…`` if
            the task has a test split. They are not finite if the run diverged.
        seconds_per_step: median wall time of a training step. It includes the work of the lens, and
            no evaluation.
        evals: a row for each evaluation: ``step`` and the validation figures.
        training: rows of ``step``, ``train_loss`` (the mean since the last row), ``lr``, and the
            scheduled values ``alpha`` and ``p`` if the optimizer has them.
        config: everything that the run depends on. ``settings`` are the optimizer's, with defaults.
        folder: the run's folder, relative to the study's.
        lens: what the lens recorded of the whole model, a row for each measurement. ``agreement``
            replaces ``predicted`` (``bandwise.study.decisions.with_agreement``). Empty without a
            lens.
    """

    optimizer: str
    seed: int
    diverged: bool
    steps: int
    final: dict[str, float]
    seconds_per_step: float
    evals: list[dict[str, float]]
    training: list[dict[str, float]]
    config: dict[str, Any]
    folder: str
    lens: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """One optimizer against the baseline, paired by seed.

    Attributes:
        optimizer: the optimizer's label.
        n: seeds.
        mean: mean final metric over seeds (the baseline's row has it too).
        std: its standard deviation over seeds; ``None`` for one seed, or if a run diverged.
        difference: mean over seeds of (this - baseline); ``None`` in the baseline's row.
        interval: 95% bootstrap interval of ``difference``; ``None`` for one seed.
        p_value: of the paired t-test that the difference is zero, times the number of optimizers
            compared with the baseline (Bonferroni); ``None`` for one seed.
        verdict: in words.
        why: one sentence that says what the verdict rests on.
        diverged: seeds whose loss became inf or NaN.
        steps_to_baseline: median over seeds of the first evaluated step at which the metric was as
            good as the baseline's last with the same seed; ``None`` if any seed never was.
        seconds_per_step: median over seeds.
    """

    optimizer: str
    n: int
    mean: float
    std: float | None
    difference: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    verdict: Verdict
    why: str
    diverged: int
    steps_to_baseline: float | None
    seconds_per_step: float


@dataclass(frozen=True)
class Results:
    """A whole study, as ``results.json`` holds it.

    Attributes:
        task: the task's name.
        metric: what was compared, ``val_loss`` for example.
        direction: ``"min"`` if small is good.
        steps: optimizer steps a run.
        seeds: the seeds of every optimizer's runs.
        comparisons: a row for each optimizer, the baseline first.
        runs: every run.
        command: the command that repeats the study from a shell.
        versions: of Python, torch, bandwise and the machine's kind.
        timed_alone: whether the runs were trained one at a time, in one call. If not, their
            ``seconds_per_step`` are rough.
    """

    task: str
    metric: str
    direction: Literal["min", "max"]
    steps: int
    seeds: list[int]
    comparisons: list[Comparison]
    runs: list[Run]
    command: str
    versions: dict[str, str]
    timed_alone: bool = False

    def runs_of(self, optimizer: str) -> list[Run]:
        """The runs of one optimizer, by seed."""
        return [run for run in self.runs if run.optimizer == optimizer]

    def save(self, folder: Path) -> None:
        """Write ``results.json`` (everything) and ``results.csv`` (a row for each run)."""
        write_json(folder / "results.json", dataclasses.asdict(self))
        rows = [
            {
                "task": self.task,
                "optimizer": run.optimizer,
                "seed": run.seed,
                "steps": run.steps,
                "diverged": run.diverged,
                "seconds_per_step": run.seconds_per_step,
                **run.final,
            }
            for run in self.runs
        ]
        columns = list(dict.fromkeys(column for row in rows for column in row))
        with replacing(folder / "results.csv") as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    @classmethod
    def load(cls, folder: Path) -> Results:
        """Read the ``results.json`` in ``folder``.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it does not hold the results of a study.
        """
        path = Path(folder) / "results.json"
        try:
            data = read_json(path)
            runs = [Run(**run) for run in data.pop("runs")]
            comparisons = [_comparison(row) for row in data.pop("comparisons")]
            return cls(runs=runs, comparisons=comparisons, **data)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{path} does not exist: run `bandwise compare` first"
            ) from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a study's results: {error}") from error


def _comparison(row: dict[str, Any]) -> Comparison:
    interval = row.pop("interval")
    return Comparison(interval=None if interval is None else tuple(interval), **row)
