"""What a paper is to bandwise: parts that are run and stored, and claims that are judged by them.

The way of a figure: a part trains (through ``bandwise.study.compare``, so that it resumes and
its result does not depend on the number of workers) and returns plain data; that is stored as
``PAPER-PART-SCALE.json``; tables, figures and claims read the stored data and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rich.console import Console

from bandwise.figures.figure import Figure

ScaleName = Literal["small", "paper"]
Verdict = Literal["holds", "does not hold", "cannot tell yet"]
Data: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Context:
    """Where and how a part is run.

    Attributes:
        folder: the part's own, for studies; what is in it is gone on with.
        scale: ``"small"`` is the same design shrunk to fit two processors.
        seeds: of every setting; ``None``: the part's own number for the scale.
        jobs: runs at a time; ``None``: one a processor, or one on a GPU.
        device: ``"cpu"``, ``"cuda"``, …
        console: where progress is shown.
    """

    folder: Path
    scale: ScaleName
    seeds: int | None
    jobs: int | None
    device: str
    console: Console


@dataclass(frozen=True)
class Part:
    """A piece of a paper that is run by itself.

    Attributes:
        name: in commands and file names.
        title: in headings.
        run: trains and measures; returns plain data, small enough to be committed.
        needs: modules of the ``papers`` extra that it imports.
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
        verdict: whether the claim is kept.
    """

    ours: str
    verdict: Verdict


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper that can be measured.

    Attributes:
        where: section, table, figure or equation.
        text: what is claimed, in our words.
        theirs: the paper's figure.
        part: the name of the part whose data it is judged by.
        judge: the finding, from that data.
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
        title: which it is, and of what.
        note: definitions, and how to read it.
        columns: headings.
        rows: cells.
    """

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def _nothing(_parts: Mapping[str, Data]) -> Sequence[Any]:
    return ()


@dataclass(frozen=True)
class Paper:
    """A paper as parts and claims.

    Attributes:
        name: ``"smi"`` or ``"nsf"``.
        title: the paper's.
        source: how it is cited, and which text of it was at hand.
        parts: in the order in which they are run.
        claims: in the order of the paper.
        tables: from the data of the parts that are stored, by their names.
        figures: likewise.
    """

    name: str
    title: str
    source: str
    parts: Sequence[Part]
    claims: Sequence[Claim]
    tables: Callable[[Mapping[str, Data]], Sequence[Table]] = _nothing
    figures: Callable[[Mapping[str, Data]], Sequence[Figure]] = _nothing
