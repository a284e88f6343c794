"""What a paper consists of: parts that are run, and claims, tables and figures made from them.

A part trains with ``bandwise.study.compare``, so that it can be resumed and its result does not
depend on the number of workers. It returns plain data, which is stored as
``PAPER-PART-SCALE.json``. Claims, tables and figures read the stored data and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rich.console import Console

from bandwise.figures.figure import Figure
from bandwise.study import Results, compare

ScaleName = Literal["small", "paper"]
Verdict = Literal["holds", "does not hold", "cannot tell yet"]
Data: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Context:
    """Where and how a part is run.

    Attributes:
        folder: the part's own folder. Studies that are found in it are continued.
        scale: ``"small"`` is the paper's design, shrunk to fit two processors.
        seeds: the number of seeds of every setting; ``None`` for each part's own number.
        jobs: the number of runs at a time; ``None`` for one a processor, or one on a GPU.
        device: ``"cpu"``, ``"cuda"``, …
        console: shows the progress.
    """

    folder: Path
    scale: ScaleName
    seeds: int | None
    jobs: int | None
    device: str
    console: Console

    def compare(
        self,
        task: str,
        optimizers: Sequence[str],
        *,
        steps: int | None = None,
        seeds: int,
        study: str = "",
        lens: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> Results:
        """Run one study of the part.

        Args:
            task: the task's name.
            optimizers: the optimizers' texts, the baseline first.
            steps: the steps of a run; by default the task's own.
            seeds: the number of seeds, unless the context has one.
            study: the name of the study's folder within the part's; by default the part's itself.
            lens: whether a lens watches the runs.
            options: the task's options.
        """
        if study:
            length = "" if steps is None else f", {steps} steps"
            self.console.print(f"{study}: {task}, {len(optimizers)} optimizers{length}")
        return compare(
            task,
            optimizers,
            seeds=seeds if self.seeds is None else self.seeds,
            steps=steps,
            out=self.folder / study,
            jobs=self.jobs,
            device=self.device,
            lens=lens,
            task_options=options,
            console=self.console,
        )


@dataclass(frozen=True)
class Part:
    """A piece of a paper that is run by itself.

    Attributes:
        name: in commands and file names.
        title: in headings.
        run: trains and measures. It returns plain data, small enough to be committed.
        needs: the modules of the ``papers`` extra that it imports.
    """

    name: str
    title: str
    run: Callable[[Context], dict[str, Any]]
    needs: Sequence[str] = ()


@dataclass(frozen=True)
class Finding:
    """What we measured about a claim.

    Attributes:
        ours: the figure, with its interval and n.
        verdict: whether the claim holds.
    """

    ours: str
    verdict: Verdict


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper that can be measured.

    Attributes:
        where: the section, table, figure or equation.
        text: the claim, in our words.
        theirs: the paper's figure.
        part: the name of the part whose data decides.
        judge: takes that data and returns the finding.
    """

    where: str
    text: str
    theirs: str
    part: str
    judge: Callable[[Data], Finding]


@dataclass(frozen=True)
class Table:
    """A table of a paper with our figures in it.

    Attributes:
        title: the table's number and subject.
        note: definitions, and how to read it.
        columns: headings.
        rows: cells.
    """

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Paper:
    """A paper as parts, claims, tables and figures.

    Attributes:
        name: ``"smi"`` or ``"nsf"``.
        title: the paper's title.
        source: how the paper is cited, and how much of its text we have.
        parts: in the order in which they are run.
        claims: in the order of the paper.
        tables: makes the tables from the data of the stored parts, given by the parts' names.
        figures: makes the figures in the same way.
    """

    name: str
    title: str
    source: str
    parts: Sequence[Part]
    claims: Sequence[Claim]
    tables: Callable[[Mapping[str, Data]], Sequence[Table]]
    figures: Callable[[Mapping[str, Data]], Sequence[Figure]]


def one_of(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise ``ValueError`` unless the argument of that name is one of the choices."""
    if value not in choices:
        listed = ", ".join(map(str, choices))
        raise ValueError(f"{name} must be one of {listed}, got {value!r}")
