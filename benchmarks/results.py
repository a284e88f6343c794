"""The results of a benchmark, as plain objects that are stored in JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bandwise.files import read_json, write_json


class Quartiles(NamedTuple):
    """The quartiles of several numbers."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        """Compute them by linear interpolation."""
        return cls(*np.quantile(values, (0.25, 0.5, 0.75)).tolist())


@dataclass(frozen=True)
class Row:
    """A contender's times.

    Attributes:
        name: the contender's name.
        seconds: the time of a call in every round.
        against: the row by whose times this row's are divided, round by round.
        moves: the least number of bytes that a call must move.
    """

    name: str
    seconds: list[float]
    against: str | None = None
    moves: int | None = None


@dataclass(frozen=True)
class Case:
    """Contenders that were timed side by side.

    Attributes:
        title: what was done.
        parameters: the number of parameters.
        rows: one row for each contender.
        orders: the order in which the contenders ran, round by round.
        note: how to read the case.
        absent: contenders that could not be measured, and why.
        sweep: the sweep over sizes that the case belongs to.
        finding: the names of two rows: the sweep's subject, and the row it is compared with.
        added: whether ratios are shown as time added, in percent.
    """

    title: str
    parameters: int
    rows: list[Row]
    orders: list[list[str]]
    note: str = ""
    absent: dict[str, str] = field(default_factory=dict)
    sweep: str | None = None
    finding: tuple[str, str] | None = None
    added: bool = False

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)

    def ratio(self, name: str, against: str) -> Quartiles:
        """The quartiles over rounds of one row's time over another's."""
        pairs = zip(self.row(name).seconds, self.row(against).seconds, strict=True)
        return Quartiles.of([one / other for one, other in pairs])


@dataclass(frozen=True)
class Footprint:
    """Memory in bytes, and the memory that it is compared with."""

    name: str
    bytes: int
    against: str
    against_bytes: int

    @property
    def ratio(self) -> float:
        """The memory over the one that it is compared with."""
        return self.bytes / self.against_bytes


@dataclass(frozen=True)
class Bench:
    """A whole benchmark, as ``bench.json`` holds it.

    Attributes:
        command: the shell command that repeats it.
        machine: processor, device, threads, versions.
        cases: the timed cases.
        memory: the measured memory.
        skipped: cases that could not be measured, and why.
    """

    command: str
    machine: dict[str, str]
    cases: list[Case] = field(default_factory=list)
    memory: list[Footprint] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def sweeps(self) -> dict[str, list[Case]]:
        """The cases of every sweep, by size."""
        names = dict.fromkeys(case.sweep for case in self.cases if case.sweep)
        by_size = sorted(self.cases, key=lambda case: case.parameters)
        return {name: [case for case in by_size if case.sweep == name] for name in names}

    def save(self, path: Path) -> None:
        """Write strict JSON: every round, and the figures computed from the rounds."""
        data = dataclasses.asdict(self)
        for case, stored in zip(self.cases, data["cases"], strict=True):
            for row, entry in zip(case.rows, stored["rows"], strict=True):
                entry["quartiles"] = Quartiles.of(row.seconds)
                entry["ratio"] = case.ratio(row.name, row.against) if row.against else None
        for footprint, entry in zip(self.memory, data["memory"], strict=True):
            entry["ratio"] = footprint.ratio
        write_json(path, data)

    @classmethod
    def load(cls, path: Path) -> Bench:
        """Read what ``save`` wrote. Quartiles and ratios are computed again from the rounds."""
        try:
            data = read_json(path)
            cases = [_case(entry) for entry in data.pop("cases")]
            memory = [_without(Footprint, entry, "ratio") for entry in data.pop("memory")]
            return cls(cases=cases, memory=memory, **data)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{path} does not exist: run `python -m benchmarks` first"
            ) from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a benchmark's results: {error}") from error


class Law(NamedTuple):
    """The fit of ``T = T_base (1 + γ ln P)``, the SMI paper's (18), to measured times.

    Attributes:
        gamma: γ by least squares.
        r_squared: the share of the ratios' variance over sizes that the law explains; negative if
            a constant fits better.
    """

    gamma: float
    r_squared: float

    @classmethod
    def fit(cls, cases: Sequence[Case]) -> Law:
        """Fit the median ratios of a sweep's finding."""
        x = np.log([case.parameters for case in cases])
        y = np.array([case.ratio(*case.finding).median - 1 for case in cases if case.finding])
        gamma = float(x @ y / (x @ x))
        variation = float(((y - y.mean()) ** 2).sum())
        unexplained = float(((y - gamma * x) ** 2).sum())
        return cls(gamma, 1 - unexplained / variation if variation else math.nan)


def _case(entry: dict[str, Any]) -> Case:
    rows = [_without(Row, row, "quartiles", "ratio") for row in entry.pop("rows")]
    finding = entry.pop("finding")
    return Case(rows=rows, finding=None if finding is None else tuple(finding), **entry)


def _without(cls: type[Any], entry: dict[str, Any], *derived: str) -> Any:
    return cls(**{key: value for key, value in entry.items() if key not in derived})
