"""The ledger of claims and the pages of the papers, made from stored data alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import papers
from bandwise.figures.figure import Figure
from bandwise.figures.pages import fill, save
from bandwise.figures.words import DASH, MINUS
from bandwise.files import replacing
from papers.paper import Claim, Data, Finding, Paper, ScaleName, Table, Verdict
from papers.stored import read_part
from papers.verdicts import together

_RULES = """\
**What is measured.** All optimizers of a part train with the same seeds. A difference is taken seed
by seed, and its 95% t-interval stands in brackets. For timings it is the bootstrap interval of the
median over the rounds of one process; another process may differ by more. A difference is *real* if
the raw p-value of a paired t-test is below 5%. It is not corrected for the number of claims: where
there is no difference, one test in twenty sees one.

**When a claim holds.** A claim with a figure holds if our difference is real, goes the way claimed
and is at least half as large. It does not hold if a difference half as large is ruled out by the
same test. A claim without a figure holds if the difference is real and goes the way claimed. It
does not hold if the difference is real and goes the other way. Performance is *maintained* if the
loss is at most 1% above the baseline's. To be better is not asked, and the margin is ours. A run
that diverged supports no claim.

**What the verdicts say.**

- *Reproduced*: the claim holds for what we trained.
- *Not reproduced at this scale*: it does not hold for what we trained. How long that was stands
  beside the verdict. A longer training or a larger model may show what the paper saw.
- *Contradicted*: it does not hold, and the scale cannot matter. We say so only of memory, of counts
  and of the speed of inference: a dense model runs the same operations whatever trained it.
- *Cannot tell yet*: neither is shown. More seeds are needed, or the reason stands beside the
  verdict. The time of a step is compared at the paper's tokens a step or not at all.
- *Not defined in the paper*: the text that we have says neither by a formula nor by a standard term
  what is measured. Our figure is by a definition of ours.

**What is counted.** Claims with the same words in the column *comparison* rest on one comparison
and count once. Together they are reproduced if each of them is, and not reproduced if one of them
is not. What the authors state against their own method, or as a possibility, stands in a table
apart and gets no verdict. Our own claims have a table of their own.
"""


@dataclass(frozen=True)
class Edition:
    """The stored parts of a paper at one scale.

    Attributes:
        paper: the paper.
        scale: the scale's name.
        stored: the content of the parts' files, by the parts' names.
    """

    paper: Paper
    scale: ScaleName
    stored: Mapping[str, Mapping[str, Any]]

    @property
    def data(self) -> dict[str, Data]:
        """The data of the parts, by their names."""
        return {name: part["data"] for name, part in self.stored.items()}

    def finding(self, claim: Claim) -> Finding:
        """The finding about a claim, whether it was measured or not."""
        if claim.part not in self.stored:
            return Finding("not measured")
        with _of_file(f"{self.paper.name}-{claim.part}-{self.scale}.json"):
            return claim.judge(self.data[claim.part])

    def verdict(self, claim: Claim) -> tuple[Verdict, str]:
        """The verdict on a claim, and what must be known of it; may be empty."""
        return claim.verdict(self.finding(claim), self.paper.regime(claim.part, self.scale))

    def counts(self) -> Counter[Verdict]:
        """How often each verdict was reached; claims of one comparison count once."""
        groups: dict[str, list[Claim]] = {}
        for claim in self.paper.claims:
            groups.setdefault(claim.comparison or claim.text, []).append(claim)
        return Counter(self._of_group(claims) for claims in groups.values())

    def _of_group(self, claims: Sequence[Claim]) -> Verdict:
        """The verdict that all claims of a group have, or that on all of them together."""
        verdicts = [self.verdict(claim)[0] for claim in claims]
        if len(set(verdicts)) == 1:
            return verdicts[0]
        holds = together([self.finding(claim).holds for claim in claims])
        regime = self.paper.regime(claims[0].part, self.scale)
        return claims[0].verdict(Finding("", holds), regime)[0]

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
        *_table(_summary(found)),
        "",
        "The scale *small* fits two processors. For SMI it is the paper's design, shrunk. For NSF "
        "the tasks are ours, since the paper's are not known to us.",
        "",
        "## How the verdicts are made",
        "",
        _RULES,
    ]
    for edition in found:
        paper = edition.paper
        lines += [f"## {paper.name.upper()}, scale {edition.scale}", ""]
        lines += [f"*{_plain(paper.title)}*. {_plain(paper.source)}.", ""]
        for table in (*_claims(edition), _commands(edition), *edition.tables()):
            lines += [f"### {_plain(table.title)}", ""]
            lines += [_plain(table.note), ""] if table.note else []
            lines += [*_table(table), ""]
    return "\n".join(lines)


def _summary(found: Sequence[Edition]) -> Table:
    words: tuple[Verdict, ...] = get_args(Verdict)
    rows = [
        [f"{edition.paper.name.upper()}, {edition.scale}", *(str(counts[word]) for word in words)]
        for edition, counts in ((edition, edition.counts()) for edition in found)
    ]
    return Table("", "", ("paper, scale", *words), rows)


def _claims(edition: Edition) -> list[Table]:
    """The claims that get a verdict, what the authors state apart, and claims of ours."""
    paper = edition.paper
    scored = []
    for claim in paper.claims:
        word, more = edition.verdict(claim)
        verdict = f"**{word}** ({more})" if more else f"**{word}**"
        theirs, ours = claim.theirs.replace("-", MINUS), edition.finding(claim).ours
        scored.append(
            [claim.where, claim.text, theirs, ours, verdict, claim.comparison, claim.part]
        )
    apart = [
        [claim.where, claim.text, claim.theirs, edition.finding(claim).ours, claim.part]
        for claim in paper.apart
    ]
    seen = {True: "yes", False: "no", None: "cannot tell yet"}
    beyond = [
        [claim.text, found.ours, seen[found.holds], claim.part]
        for claim in paper.beyond
        for found in (edition.finding(claim),)
    ]
    tables = [
        Table("Claims", "", ("where", "claim", "theirs", "ours", "verdict", "comparison", "part"),
              scored),
        Table("Apart: what the authors state against their method, or as a possibility",
              "It gets no verdict.", ("where", "statement", "theirs", "ours", "part"), apart),
        Table("Beyond the paper: claims of ours", "", ("claim", "measured", "holds", "part"),
              beyond),
    ]  # fmt: skip
    return [table for table in tables if table.rows]


def _commands(edition: Edition) -> Table:
    rows: list[Sequence[str]] = []
    for name, part in edition.stored.items():
        versions = ", ".join(f"{key} {value}" for key, value in part["versions"].items())
        length = edition.paper.regime(name, edition.scale).length
        rows.append((name, length or DASH, f"`{part['command']}`", part["date"], versions))
    columns = ("part", "trained", "command", "date", "versions")
    return Table("How each part was run", "", columns, rows)


def _table(table: Table) -> list[str]:
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    return [
        "| " + " | ".join(_plain(cell).replace("|", "\\|") for cell in row) + " |" for row in rows
    ]


def _plain(text: str) -> str:
    """The text as one line without markup."""
    return text.replace("<", "&lt;").replace("\n", " ")


def _page(edition: Edition, folder: Path) -> Path:
    paper = edition.paper
    page = fill(
        "paper.html.jinja",
        package="papers",
        title=f"{paper.name.upper()}, scale {edition.scale}",
        paper=paper,
        claims=_claims(edition),
        tables=edition.tables(),
        figures=edition.figures(),
        commands=[part["command"] for part in edition.stored.values()],
    )
    return save(page, folder / f"{paper.name}-{edition.scale}.html")
