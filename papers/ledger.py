"""The ledger of claims and the pages of the papers, made from stored data alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import papers
from bandwise.figures.figure import Figure
from bandwise.figures.pages import fill, save
from bandwise.figures.words import MINUS
from bandwise.files import replacing
from papers.paper import Claim, Data, Finding, Paper, ScaleName, Table
from papers.stored import read_part


@dataclass(frozen=True)
class Edition:
    """The stored parts of a paper at one scale.

    Attributes:
        paper: the paper.
        scale: the scale's name.
        stored: the content of the parts' files, by the parts' names.
    """

    paper: Paper
    scale: str
    stored: Mapping[str, Mapping[str, Any]]

    @property
    def data(self) -> dict[str, Data]:
        """The data of the parts, by their names."""
        return {name: part["data"] for name, part in self.stored.items()}

    def finding(self, claim: Claim) -> Finding:
        """The finding about a claim, whether it was measured or not."""
        if claim.part not in self.stored:
            return Finding("not measured", "cannot tell yet")
        with _of_file(f"{self.paper.name}-{claim.part}-{self.scale}.json"):
            return claim.judge(self.data[claim.part])

    def tables(self) -> Sequence[Table]:
        """The paper's tables, as far as there are data."""
        with _of_file(f"{self.paper.name}-*-{self.scale}.json"):
            return self.paper.tables(self.data)

    def figures(self) -> Sequence[Figure]:
        """The paper's figures, as far as there are data."""
        with _of_file(f"{self.paper.name}-*-{self.scale}.json"):
            return self.paper.figures(self.data)


@contextmanager
def _of_file(name: str) -> Iterator[None]:
    """An error that stored data cause names their file."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{name} does not hold what its claims need: {type(error).__name__}: {error}"
        ) from error


def editions(folder: Path) -> list[Edition]:
    """The papers that are stored in a folder of results.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file does not hold a part.
    """
    found = []
    for name in papers.NAMES:
        for scale in reversed(get_args(ScaleName)):
            paths = sorted(folder.glob(f"{name}-*-{scale}.json"))
            if not paths:
                continue
            stored = {}
            for path in paths:
                part = read_part(path)
                stored[part["part"]] = part
            found.append(Edition(papers.load(name), scale, stored))
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no results: run `python -m papers reproduce` first"
        )
    return found


def rebuild(folder: Path, out: Path) -> list[Path]:
    """Write the ledger, and beside ``folder`` a page for each paper and scale.

    Args:
        folder: the results.
        out: the ledger's file.

    Returns:
        The files that were written.
    """
    found = editions(folder)
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as path:
        path.write_text(markdown(found), encoding="utf-8")
    return [out, *(_page(edition, folder.parent) for edition in found)]


def markdown(found: Sequence[Edition]) -> str:
    """The ledger as a page of Markdown."""
    lines = [
        "# What the papers claim, and what was measured",
        "",
        "`python -m papers claims` writes this page from stored results. Do not edit it.",
        "",
        "- Differences are paired by seed. The 95% t-interval of the mean stands in brackets. For "
        "timings it is the bootstrap interval of the median over the rounds of one process; "
        "another process may differ by more.",
        "- A difference is *real* if its 95% t-interval excludes zero. Where all differences are "
        "equal, the chance that all have one sign must be below 5% instead.",
        "- A claim with a figure *holds* if the difference is real, goes the way claimed and is at "
        "least half as large. It *does not hold* if a difference half as large is ruled out in the "
        "same way.",
        "- A claim without a figure holds if the difference is real and goes the way claimed. It "
        "does not hold if the difference is real and goes the other way.",
        "- A claim never holds where a run diverged. It does not hold if the optimizer diverged "
        "with more seeds than its baseline.",
        "- In all other cases we *cannot tell yet*: more seeds are needed.",
        "- The tests are not corrected for the number of claims. Where there is no difference, one "
        "test in twenty sees one.",
        "- A verdict is valid for the scale that it stands under. The scale `small` is the paper's "
        "design, shrunk to two processors.",
    ]
    for edition in found:
        paper = edition.paper
        lines += ["", f"## {paper.name.upper()}, scale {edition.scale}", ""]
        lines += [f"*{_plain(paper.title)}*. {_plain(paper.source)}.", ""]
        lines += _table(("where", "claim", "theirs", "ours", "verdict", "part"), _rows(edition))
        lines += ["", "### How each part was run", ""]
        lines += _table(("part", "command", "date", "versions"), _commands(edition))
        for table in edition.tables():
            lines += ["", f"### {_plain(table.title)}", "", _plain(table.note), ""]
            lines += _table(table.columns, table.rows)
    return "\n".join(lines) + "\n"


def _rows(edition: Edition) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    for claim in edition.paper.claims:
        found = edition.finding(claim)
        theirs = claim.theirs.replace("-", MINUS)
        rows.append((claim.where, claim.text, theirs, found.ours, found.verdict, claim.part))
    return rows


def _commands(edition: Edition) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    for name, part in edition.stored.items():
        versions = ", ".join(f"{key} {value}" for key, value in part["versions"].items())
        rows.append((name, f"`{part['command']}`", part["date"], versions))
    return rows


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    table = [columns, ["---"] * len(columns), *rows]
    return [
        "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in row) + " |" for row in table
    ]


def _plain(text: str) -> str:
    """The text as one line without markup."""
    return text.replace("<", "&lt;").replace("\n", " ")


def _page(edition: Edition, folder: Path) -> Path:
    paper = edition.paper
    claims = Table("Claims", "", ("where", "claim", "theirs", "ours", "verdict"), [
        row[:-1] for row in _rows(edition)
    ])  # fmt: skip
    page = fill(
        "paper.html.jinja",
        package="papers",
        title=f"{paper.name.upper()}, scale {edition.scale}",
        paper=paper,
        claims=claims,
        tables=edition.tables(),
        figures=edition.figures(),
        commands=[part["command"] for part in edition.stored.values()],
    )
    return save(page, folder / f"{paper.name}-{edition.scale}.html")
