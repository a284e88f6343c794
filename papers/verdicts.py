"""How a claim is judged, by the rules at the head of the ledger, and how a figure is written."""

from __future__ import annotations

from collections.abc import Callable, Collection

from bandwise.figures.words import number
from bandwise.study.paired import Sample
from papers.paper import Outcome


def told(holds: bool, fails: bool) -> Outcome:
    """The outcome of two tests; ``None`` if neither sees anything."""
    return True if holds else False if fails else None


def lower(found: Sample, than: float = 0) -> Outcome:
    """Whether figures lie below a value: the rule for a claim without a figure."""
    if found.any_diverged:
        return _of_divergence(found)
    return told(found.below(than), found.above(than))


def as_large(change: Sample, claimed: float) -> Outcome:
    """Whether a change is what the paper claims: the rule for a claim with a figure.

    The claim holds if our change is real, goes the same way and is at least half as large. It does
    not hold if a change half as large is ruled out. ``Sample.above`` says what is real.

    Args:
        change: ours.
        claimed: theirs, in the same unit, not zero.
    """
    if change.any_diverged:
        return _of_divergence(change)
    ours, half = (change, claimed / 2) if claimed > 0 else (change.negated(), -claimed / 2)
    large = ours.mean is not None and ours.mean >= half
    return told(ours.above(0) and large, ours.below(half))


def _of_divergence(found: Sample) -> Outcome:
    """The outcome where runs diverged: none of these runs may support a claim."""
    return told(False, found.by_divergence() == "worse")


def together(outcomes: Collection[Outcome], wanted: Callable[..., bool] = all) -> Outcome:
    """The outcome of a claim about several cases: ``wanted`` is ``all`` or ``any`` of them."""
    settled = any if wanted is all else all
    return told(
        bool(outcomes) and wanted(outcome is True for outcome in outcomes),
        bool(outcomes) and settled(outcome is False for outcome in outcomes),
    )


def written(found: Sample, form: str = "+.4g", unit: str = "") -> str:
    """The mean, its 95% t-interval and n: ``-0.12 [-0.30, +0.05], n = 4``.

    Args:
        found: the figures.
        form: the format of a number.
        unit: stands behind the mean.
    """
    if found.mean is None:
        return f"no figure for every seed, n = {found.n}"
    text = number(found.mean, form) + unit
    if found.interval:
        low, high = found.interval
        text += f" [{number(low, form)}, {number(high, form)}]"
    return f"{text}, n = {found.n}"


def percent(found: Sample) -> str:
    """Figures in percent, written with two decimals."""
    return written(found, "+.2f", "%")
