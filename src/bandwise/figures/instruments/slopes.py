"""Adaptivity: which coordinates an optimizer gives longer steps than others."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from bandwise.figures.dots import Dots, dot_plot
from bandwise.figures.figure import Figure
from bandwise.figures.instruments.curves import series
from bandwise.figures.instruments.rows import SETTLED, Runs, means, windows
from bandwise.figures.words import MINUS, number

_REFERENCES: dict[str, dict[str, float]] = {"size": {"SGD": 0, "Adam": -1}, "rate": {"SGD": 0}}
_NOTES = {
    "size": "How the step per unit of gradient goes with the gradient's size, among the weights "
    "of a tensor. At 0 a gradient twice as large moves its weight twice as far, as with SGD; at "
    f"{MINUS}1 just as far, as with Adam; above 0 more than twice as far.",
    "rate": "How the step per unit of gradient goes with how often the gradient changes its sign, "
    "among the weights of a tensor. Below 0 slow gradients are favoured, above 0 fast ones, at 0 "
    "neither. An optimizer that goes by size alone favours slow ones where the fast are large, "
    "and fast ones where the fast are small.",
}
# What low and high slopes do, to follow a label, and the largest slope that momentum can feign.
_WORDS = {
    "size": ("evens steps out", "favours large gradients"),
    "rate": ("favours slow gradients", "favours fast gradients"),
}
_NEUTRAL = 0.1
_FEW = 3  # that are named one by one


class _Slope(NamedTuple):
    """A mean slope and its 95% interval."""

    mean: float
    low: float
    high: float

    @property
    def side(self) -> int | None:
        """-1 or 1 where all of it is below or above what is neutral, 0 where all of it is neutral;
        ``None`` if it cannot be told."""
        if -_NEUTRAL <= self.low and self.high <= _NEUTRAL:
            return 0
        if self.low <= _NEUTRAL and self.high >= -_NEUTRAL:
            return None
        return -1 if self.mean < 0 else 1

    def overlaps(self, other: _Slope) -> bool:
        return self.low <= other.high and other.low <= self.high


def size_slope(runs: Runs) -> Figure | None:
    """How steps go with the size of gradients: 0 is SGD, -1 Adam, about -2p NSF."""
    return _dots(runs, "size")


def rate_slope(runs: Runs) -> Figure | None:
    """How steps go with the frequency of gradients: below 0 slow coordinates are favoured."""
    return _dots(runs, "rate")


def size_slope_over_steps(runs: Runs) -> Figure | None:
    """The size slope of each window, where a cycle of p shows."""
    return _over_steps(runs, "size")


def rate_slope_over_steps(runs: Runs) -> Figure | None:
    """The rate slope of each window, where a cycle of p shows."""
    return _over_steps(runs, "rate")


def _dots(runs: Runs, what: Literal["size", "rate"]) -> Figure | None:
    key = f"{what}_slope"
    averages = means(runs, lambda row: row.get(key), windows)
    if not averages:
        return None
    dots = []
    found: dict[str, _Slope] = {}
    for index, label in enumerate(runs):
        if label not in averages:
            continue
        rows = [row for run in runs[label] for row in windows(run) if row.get(key) is not None]
        low, high = (
            statistics.fmean(row[f"{key}_{end}"] for row in rows) for end in ("low", "high")
        )
        found[label] = _Slope(averages[label], low, high)
        dots.append(
            Dots(
                index=index,
                name=label,
                kind="windows",
                values=[
                    (f"up to step {row['step']:,}: {number(row[key], '+.2f')}", row[key])
                    for row in sorted(rows, key=lambda row: row["step"])
                ],
                mean=averages[label],
                interval=(low, high),
                words=f"mean {number(averages[label], '+.2f')}",
            )
        )
    note = (
        f"{_NOTES[what]} Dots are windows of training, the first above the last; the diamond is "
        f"their mean, the bar a window's 95% interval. Up to {_NEUTRAL} from 0 is neutral: "
        f"momentum alone can do that. {SETTLED}"
    )
    plot = dot_plot(dots, f"{what} slope (log per log)", _REFERENCES[what])
    return Figure(f"lens-{what}-slope", _said(found, what), note, plot, small=True)


def _said(found: Mapping[str, _Slope], what: Literal["size", "rate"]) -> str:
    """Who lies lowest and who highest, who is at 0, and who might be, in words."""
    sides: dict[int | None, list[str]] = defaultdict(list)
    for label, slope in found.items():
        sides[slope.side].append(label)
    parts = [
        _outermost(found, sides[side], side, words)
        for side, words in zip((-1, 1), _WORDS[what], strict=True)
        if sides[side]
    ]
    if neutral := sides[0]:
        few = len(neutral) <= _FEW
        parts.append(f"neutral: {', '.join(neutral)}" if few else f"{len(neutral)} are neutral")
    if unclear := sides[None]:
        few, said = len(unclear) <= _FEW, "cannot be told from neutral"
        parts.append(f"{said}: {', '.join(unclear)}" if few else f"{len(unclear)} {said}")
        if len(unclear) == 1:
            mean, low, high = (number(value, "+.2f") for value in found[unclear[0]])
            parts[-1] += f" ({mean}, interval {low} to {high})"
    return f"{what.capitalize()} slope: {'; '.join(parts)}"


def _outermost(found: Mapping[str, _Slope], there: Sequence[str], side: int, words: str) -> str:
    """Who of those on a side of 0 lies farthest out, and who as far as can be told."""
    most = max(there, key=lambda label: side * found[label].mean)
    alike = [label for label in found if label != most and found[label].overlaps(found[most])]
    said = f"{most} {words}{' most' if len(found) > 1 and not alike else ''}"
    said += f" ({number(found[most].mean, '+.2f')})"
    too = [label for label in alike if label in there]
    if not too:
        return said
    who = ", ".join(too) if len(too) <= _FEW else f"{len(too)} others"
    return f"{said}, and so {'does' if len(too) == 1 else 'do'} {who}"


def _over_steps(runs: Runs, what: Literal["size", "rate"]) -> Figure | None:
    return series(
        f"{what}-slope-steps",
        runs,
        "temporal",
        lambda row: row.get(f"{what}_slope"),
        f"{what.capitalize()} slope over training",
        note="A cycle of p shows where it is longer than a window of steps.",
        y=f"{what} slope (log per log)",
        form="+.2f",
        references=_REFERENCES[what],
    )
