"""Adaptivity: which weights an optimizer gives longer steps than others."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from bandwise.figures.dots import Dots, dot_plot
from bandwise.figures.figure import Figure
from bandwise.figures.instruments.instrument import Instrument
from bandwise.figures.instruments.rows import SETTLED, Runs, Value, scalar, windows
from bandwise.figures.words import MINUS, number

_NEUTRAL = 0.1  # the largest slope that momentum alone can cause
_FEW = 3  # labels that a title names one by one
_FORM = "+.2f"


class _Slope(NamedTuple):
    """A slope and its 95% interval."""

    mean: float
    low: float
    high: float

    @property
    def side(self) -> int | None:
        """Where the whole interval lies: -1 below neutral, 0 within, 1 above; else ``None``."""
        if -_NEUTRAL <= self.low and self.high <= _NEUTRAL:
            return 0
        if self.low <= _NEUTRAL and self.high >= -_NEUTRAL:
            return None
        return -1 if self.mean < 0 else 1

    def overlaps(self, other: _Slope) -> bool:
        return self.low <= other.high and other.low <= self.high


@dataclass(frozen=True)
class Slopes:
    """Draws how the step per unit of gradient goes with a property of the gradient.

    The rows of ``temporal`` have ``{what}_slope`` and its 95% interval, from ``{what}_slope_low``
    to ``{what}_slope_high``.
    """

    what: str  # the property
    below: str  # what an optimizer with a slope below zero does, to follow its label
    above: str  # the same of a slope above zero
    references: Mapping[str, float]  # slopes of known optimizers
    note: str

    def __call__(self, runs: Runs) -> Figure | None:
        """For each label its windows as dots and their mean; ``None`` without any."""
        keys = [f"{self.what}_slope{end}" for end in ("", "_low", "_high")]
        found: dict[str, _Slope] = {}
        dots = []
        for index, (label, some) in enumerate(runs.items()):
            rows = [row for run in some for row in windows(run)]
            read = [(row["step"], _Slope(*(scalar(row, key) for key in keys))) for row in rows]
            seen = [(step, at) for step, at in read if all(map(math.isfinite, at))]
            if not seen:
                continue
            mean, low, high = map(statistics.fmean, zip(*(at for _, at in seen), strict=True))
            found[label] = _Slope(mean, low, high)
            values = [
                (f"up to step {step:,}: {number(at.mean, _FORM)}", at.mean)
                for step, at in sorted(seen, key=itemgetter(0))
            ]
            words = f"mean {number(mean, _FORM)}"
            dots.append(Dots(index, label, values, mean, (low, high), words))
        if not dots:
            return None
        note = (
            f"{self.note} Dots are windows of training, the first above the last; the diamond is "
            f"their mean, the bar a window's 95% interval. Up to {_NEUTRAL} from 0 is neutral: "
            f"momentum alone can do that. {SETTLED}"
        )
        plot = dot_plot(dots, f"{self.what} slope (log per log)", self.references)
        return Figure(f"lens-{self.what}-slope", self._title(found), note, plot, small=True)

    def _title(self, found: Mapping[str, _Slope]) -> str:
        """Who lies lowest and who highest, who is neutral, and who may be."""
        sides: dict[int | None, list[str]] = {-1: [], 1: [], 0: [], None: []}
        for label, slope in found.items():
            sides[slope.side].append(label)
        low, high, neutral, unclear = sides.values()
        parts = [_outermost(found, low, -1, self.below)] if low else []
        parts += [_outermost(found, high, 1, self.above)] if high else []
        if neutral:
            few = len(neutral) <= _FEW
            parts.append(f"neutral: {', '.join(neutral)}" if few else f"{len(neutral)} are neutral")
        if unclear:
            few, said = len(unclear) <= _FEW, "cannot be told from neutral"
            parts.append(f"{said}: {', '.join(unclear)}" if few else f"{len(unclear)} {said}")
        if len(unclear) == 1:
            mean, least, most = (number(value, _FORM) for value in found[unclear[0]])
            parts[-1] += f" ({mean}, interval {least} to {most})"
        return f"{self.what.capitalize()} slope: {'; '.join(parts)}"

    def over_steps(self) -> Instrument:
        """The slope of each window of training, as a curve."""
        return Instrument(
            name=f"{self.what}-slope-steps",
            title=f"{self.what.capitalize()} slope over training",
            quantity="temporal",
            value=Value(f"{self.what}_slope"),
            y=f"{self.what} slope (log per log)",
            note="A cycle of p shows where it is longer than a window of steps.",
            form=_FORM,
            references=lambda runs: self.references,
        )


def _outermost(found: Mapping[str, _Slope], there: Sequence[str], side: int, words: str) -> str:
    """Of the labels on one side, which lies farthest out, and which may lie as far."""
    most = max(there, key=lambda label: side * found[label].mean)
    alike = [label for label in found if label != most and found[label].overlaps(found[most])]
    said = f"{most} {words}{' most' if len(found) > 1 and not alike else ''}"
    said += f" ({number(found[most].mean, _FORM)})"
    too = [label for label in alike if label in there]
    if not too:
        return said
    who = ", ".join(too) if len(too) <= _FEW else f"{len(too)} others"
    return f"{said}, and so {'does' if len(too) == 1 else 'do'} {who}"


SIZE = Slopes(
    what="size",
    below="evens steps out",
    above="favours large gradients",
    references={"SGD in theory": 0, "Adam in theory": -1},
    note="How the step per unit of gradient goes with the gradient's size, among the weights of a "
    "tensor. At 0 a gradient twice as large moves its weight twice as far, as with SGD; at "
    f"{MINUS}1 just as far, as with Adam; above 0 more than twice as far.",
)
RATE = Slopes(
    what="rate",
    below="favours slow gradients",
    above="favours fast gradients",
    references={"SGD in theory": 0},
    note="How the step per unit of gradient goes with how often the gradient changes its sign, "
    "among the weights of a tensor. Below 0 slow gradients are favoured, above 0 fast ones, at 0 "
    "neither. Size matters too: an optimizer that evens sizes out favours slow gradients if the "
    "fast ones are large, and fast gradients if the fast ones are small.",
)
