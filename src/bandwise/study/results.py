"""The results of a study, as plain objects that are written to JSON and read back."""

from __future__ import annotations

import csv
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bandwise.files import read_json, replacing, write_json
from bandwise.lens import Row

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
        seed: of the initial weights, the batches and dropout.
        diverged: whether the loss became inf or NaN. Such a run stops there.
        steps: the optimizer steps taken.
        final: the figures of the last evaluation, such as ``val_loss``, and ``test_loss`` of a task
            with a test split. A diverged run's figures may be inf or NaN.
        seconds_per_step: the median wall time of a training step, with the lens's work and without
            evaluations.
        evals: one row for each evaluation: ``step`` and the validation figures.
        training: one row for each log entry: ``step``, ``train_loss`` (the mean since the entry
            before), ``lr``, and an optimizer's scheduled values ``alpha`` and ``p``.
        config: everything that the run depends on. Under ``settings`` stand all settings of the
            optimizer, with defaults.
        folder: the run's folder, relative to the study's.
        lens: one row for each measurement of the lens on the whole model; empty without a lens.
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
        n: the number of seeds.
        mean: the mean final metric over seeds; NaN if a run diverged.
        std: the standard deviation of the final metric over seeds; ``None`` where there is none.
        difference: the mean over seeds of this optimizer's metric less the baseline's; ``None`` in
            the baseline's row, or if a run of either diverged.
        interval: the 95% t-interval of ``difference``; ``None`` where there is none.
        p_raw: the p-value of the paired t-test that the difference is zero; ``None`` where
            ``interval`` is.
        p_corrected: the same, corrected for the number of optimizers that are compared with the
            baseline (Holm). The verdict rests on it.
        verdict: the result in words.
        why: one sentence that says what the verdict rests on.
        diverged: the number of seeds whose loss became inf or NaN.
        steps_to_baseline: the median over seeds of the first evaluated step at which the metric was
            as good as the baseline's last with the same seed. ``None`` if it never was with some
            seed.
        seconds_per_step: the median over seeds.
    """

    optimizer: str
    n: int
    mean: float
    std: float | None
    difference: float | None
    interval: tuple[float, float] | None
    p_raw: float | None
    p_corrected: float | None
    verdict: Verdict
    why: str
    diverged: int
    steps_to_baseline: float | None
    seconds_per_step: float

    def __post_init__(self) -> None:
        if self.interval is not None:  # JSON has lists alone
            object.__setattr__(self, "interval", tuple(self.interval))


@dataclass(frozen=True)
class Results:
    """A whole study, as ``results.json`` holds it.

    Attributes:
        task: the task's name.
        metric: the figure that is compared, such as ``val_loss``.
        direction: ``"min"`` if a small metric is good, ``"max"`` if a large one is.
        steps: the optimizer steps of a run.
        seeds: the seeds that every optimizer ran with.
        comparisons: one row for each optimizer, the baseline first.
        runs: every run.
        command: the shell command that repeats the study.
        versions: of Python, torch and bandwise, and the kind of machine.
        timed_alone: whether the runs were trained one at a time and without a break. If not,
            ``seconds_per_step`` is rough.
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
        """Write ``results.json`` (everything) and ``results.csv`` (one row for each run)."""
        write_json(folder / "results.json", dataclasses.asdict(self))
        columns = ("optimizer", "seed", "steps", "diverged", "seconds_per_step")
        rows = [
            {"task": self.task, **{name: getattr(run, name) for name in columns}, **run.final}
            for run in self.runs
        ]
        with replacing(folder / "results.csv") as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
            writer.writeheader()
            writer.writerows(rows)

    @classmethod
    def load(cls, folder: Path) -> Results:
        """Read the ``results.json`` in a folder.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it does not hold a study's results.
        """
        path = Path(folder) / "results.json"
        try:
            data = read_json(path)
            runs = [Run(**run) for run in data.pop("runs")]
            comparisons = [Comparison(**row) for row in data.pop("comparisons")]
            return cls(runs=runs, comparisons=comparisons, **data)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{path} does not exist: run `bandwise compare` first"
            ) from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a study's results: {error}") from error
