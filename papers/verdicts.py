"""The rule by which claims are judged: the one at the head of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Collection

from papers.paper import Verdict
from papers.stored import Values


def told(holds: bool, fails: bool) -> Verdict:
    """By what is seen. That neither is seen is no verdict: more seeds are needed."""
    if holds:
        return "holds"
    return "does not hold" if fails else "cannot tell yet"


def lower(found: Values, than: float = 0) -> Verdict:
    """Whether figures that are claimed to lie below a value do: a claim without a figure."""
    return told(found.below(than), found.diverged > 0 or found.above(than))


def as_large(change: Values, claimed: float) -> Verdict:
    """Whether a change is what was claimed: a claim with a figure.

    It holds if the change is real, goes the same way and is at least half as large; it does not if
    one half as large is ruled out. "Real" and "ruled out" as in ``Values.above``.

    Args:
        change: ours.
        claimed: theirs, in the same unit, not zero.
    """
    ours, half = (change, claimed / 2) if claimed > 0 else (change.negated(), -claimed / 2)
    return told(ours.above(0) and ours.mean >= half, ours.diverged > 0 or ours.below(half))


def together(verdicts: Collection[Verdict], wanted: Callable[..., bool] = all) -> Verdict:
    """On a claim about several: ``wanted`` is ``all`` or ``any`` of them."""
    settled = any if wanted is all else all
    return told(
        bool(verdicts) and wanted(v == "holds" for v in verdicts),
        bool(verdicts) and settled(v == "does not hold" for v in verdicts),
    )
