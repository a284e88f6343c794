"""The pieces of a paper: parts, and claims, tables and figures made from the parts' data.

A part trains with ``bandwise.study.compare``. So it can be resumed, and its result does not depend
on the number of workers. It returns plain data, which is stored as ``PAPER-PART-SCALE.json``.
Claims, tables and figures read only the stored data.
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
Verdict = Literal[
    "reproduced",
    "not reproduced at this scale",
    "contradicted",
    "cannot tell yet",
    "not defined in the paper",
]
Outcome: TypeAlias = bool | None
"""Whether a claim holds for what was measured; ``None`` where these data cannot tell."""
Data: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Context:
    """The place and the settings of a part's run.

    Attributes:
        folder: the part's own folder. Studies in it are continued.
        scale: ``"small"`` is the paper's design, reduced to fit two processors.
        seeds: the number of seeds of every setting; ``None`` for each part's own number.
        jobs: the number of runs at a time; ``None`` for one per processor, or one on a GPU.
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
            study: the name of the study's folder within the part's; by default the part's folder.
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
    """A piece of a paper that runs alone.

    Attributes:
        name: its name in commands and file names.
        title: its title in headings.
        run: trains and measures. It returns plain data, small enough to be committed.
        needs: the modules of the ``papers`` extra that it imports.
    """

    name: str
    title: str
    run: Callable[[Context], dict[str, Any]]
    needs: Sequence[str] = ()


@dataclass(frozen=True)
class Finding:
    """Our measurement of a claim.

    Attributes:
        ours: the figure, with its interval and n.
        holds: whether the claim holds for it.
        why: why the figure cannot decide the claim, where more seeds would not help.
    """

    ours: str
    holds: Outcome = None
    why: str = ""


@dataclass(frozen=True)
class Regime:
    """What a part trains, beside what the paper trains.

    Attributes:
        length: how long both train, in words.
        tokens: how many tokens a step both have, in words; empty if they are the same.
    """

    length: str
    tokens: str = ""


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper that can be measured.

    Attributes:
        where: the section, table, figure or equation.
        text: the claim, in our words.
        theirs: the paper's figure.
        part: the name of the part whose data decides the verdict.
        judge: takes that data and returns the finding.
        comparison: claims with the same name here rest on one comparison and count once.
        scale: whether the size of the training matters for the claim. ``"same tokens"``: it is
            judged only where a step has as many tokens as the paper's.
        undefined: what the paper does not say, where it has neither a formula for what it measures
            nor a standard term.
    """

    where: str
    text: str
    theirs: str
    part: str
    judge: Callable[[Data], Finding]
    comparison: str = ""
    scale: Literal["matters", "does not matter", "same tokens"] = "matters"
    undefined: str = ""

    def verdict(self, found: Finding, regime: Regime) -> tuple[Verdict, str]:
        """The verdict, and in words what the reader must know of it; may be empty.

        Args:
            found: what was measured.
            regime: of the claim's part.
        """
        if self.undefined:
            return "not defined in the paper", self.undefined
        if self.scale == "same tokens" and regime.tokens:
            return "cannot tell yet", regime.tokens
        if found.holds is None:
            return "cannot tell yet", found.why
        if found.holds:
            return "reproduced", ""
        if self.scale == "does not matter":
            return "contradicted", ""
        return "not reproduced at this scale", regime.length


@dataclass(frozen=True)
class Table:
    """A table of a paper with our figures in it.

    Attributes:
        title: the table's number and subject.
        note: definitions, and how to read it.
        columns: the headings.
        rows: the cells.
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
        source: the paper's citation, and how much of its text we have.
        parts: the parts, in the order in which they run.
        claims: the claims, in the order of the paper.
        tables: makes the tables from the data of the stored parts, given by the parts' names.
        figures: makes the figures in the same way.
        apart: what the authors state against their own method, or as a possibility. It is measured
            and gets no verdict.
        beyond: claims of ours.
        regime: what a part trains, by the part's and the scale's names.
    """

    name: str
    title: str
    source: str
    parts: Sequence[Part]
    claims: Sequence[Claim]
    tables: Callable[[Mapping[str, Data]], Sequence[Table]]
    figures: Callable[[Mapping[str, Data]], Sequence[Figure]]
    apart: Sequence[Claim] = ()
    beyond: Sequence[Claim] = ()
    regime: Callable[[str, ScaleName], Regime] = lambda part, scale: Regime("")


def one_of(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise ``ValueError`` unless the argument of that name is one of the choices."""
    if value not in choices:
        listed = ", ".join(map(str, choices))
        raise ValueError(f"{name} must be one of {listed}, got {value!r}")
