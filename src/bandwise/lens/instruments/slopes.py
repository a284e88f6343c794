"""Adaptivity: which coordinates an optimizer gives longer steps than others."""

from __future__ import annotations

import statistics
from typing import Literal

from bandwise.drawing.dots import Dots, dot_plot
from bandwise.drawing.figure import Figure
from bandwise.drawing.words import MINUS, number
from bandwise.lens.instruments.curves import series
from bandwise.lens.instruments.rows import SETTLED, Runs, means, windows

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
    "rate": ("favours slow gradients", "favours fast ones"),
}
_NEUTRAL = 0.1


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
    found = means(runs, lambda row: row.get(key), windows)
    if not found:
        return None
    dots = []
    for index, label in enumerate(runs):
        if label not in found:
            continue
        rows = [row for run in runs[label] for row in windows(run) if row.get(key) is not None]
        low, high = (
            statistics.fmean(row[f"{key}_{end}"] for row in rows) for end in ("low", "high")
        )
        dots.append(
            Dots(
                index=index,
                name=label,
                kind="windows",
                values=[
                    (f"up to step {row['step']:,}: {number(row[key], '+.2f')}", row[key])
                    for row in sorted(rows, key=lambda row: row["step"])
                ],
                mean=found[label],
                interval=(low, high),
                words=f"mean {number(found[label], '+.2f')}",
            )
        )
    note = (
        f"{_NOTES[what]} Dots are windows of training, the first above the last; the diamond is "
        f"their mean, the bar a window's 95% interval. {SETTLED}"
    )
    plot = dot_plot(dots, f"{what} slope (log per log)", _REFERENCES[what])
    return Figure(f"lens-{what}-slope", _said(found, what), note, plot, small=True)


def _said(found: dict[str, float], what: Literal["size", "rate"]) -> str:
    """Who is lowest, who is highest and who is at 0, in words."""
    low, high = min(found, key=lambda k: found[k]), max(found, key=lambda k: found[k])
    parts = []
    for label, words, there in zip(
        (low, high), _WORDS[what], (found[low] < -_NEUTRAL, found[high] > _NEUTRAL), strict=True
    ):
        if there:
            most = " most" if len(found) > 1 else ""
            parts.append(f"{label} {words}{most} ({number(found[label], '+.2f')})")
    neutral = [label for label, slope in found.items() if abs(slope) <= _NEUTRAL]
    if neutral:
        few = len(neutral) <= 3
        parts.append(f"neutral: {', '.join(neutral)}" if few else f"{len(neutral)} are neutral")
    return f"{what.capitalize()} slope: {'; '.join(parts)}"


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
