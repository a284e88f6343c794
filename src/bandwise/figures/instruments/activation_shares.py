"""Shares of a trained model's activations, such as those near zero: Table 3 of the SMI paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from bandwise.figures.dots import Dots, dot_plot
from bandwise.figures.figure import Figure
from bandwise.figures.instruments.rows import Runs, last_of, scalar
from bandwise.figures.words import lowest_to_highest, number
from bandwise.lens import Row


@dataclass(frozen=True)
class ActivationShare:
    """Draws one share at the end of training: a dot for each seed.

    Attributes:
        key: the figure in the rows of ``activations``. ``{key}_at_…`` are the same share at other
            thresholds for zero.
        title: how the figure's title begins.
        note: how to read the figure.
    """

    key: str
    title: str
    note: str

    def __call__(self, runs: Runs) -> Figure | None:
        """The figure; ``None`` if no row has the share."""
        last = {
            label: [row for rows in some for row in last_of(rows, "activations")]
            for label, some in runs.items()
        }
        found = {label: shares for label, rows in last.items() if (shares := _of(rows, self.key))}
        if not found:
            return None
        dots = [
            Dots(
                list(runs).index(label),
                label,
                "seeds",
                values=[(number(share, ".2%"), share) for share in shares],
                mean=fmean(shares),
                words=f"mean {number(fmean(shares), '.2%')}",
            )
            for label, shares in found.items()
        ]
        plot = dot_plot(dots, "share of values", {})
        plot.update_xaxes(tickformat=".1~%")
        means = {label: fmean(shares) for label, shares in found.items()}
        return Figure(
            f"lens-activations-{self.key.replace('_', '-')}",
            f"{self.title}: {lowest_to_highest(means, '.1%')}{self._at_others(last, means)}",
            f"{self.note} Dots are seeds, the diamond is their mean.",
            plot,
            small=True,
        )

    def _at_others(self, last: Mapping[str, Sequence[Row]], means: Mapping[str, float]) -> str:
        """Whether the lowest is below the highest at other thresholds for zero, in words."""
        rows = [row for label in means for row in last[label]]
        keys = [key for key in rows[0] if key.startswith(f"{self.key}_at_")]
        others = [key for key in keys if len(_of(rows, key)) == len(rows)]
        low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        if low == high or not others:
            return ""
        always = all(fmean(_of(last[low], k)) < fmean(_of(last[high], k)) for k in others)
        return ", at every threshold" if always else ", but at other thresholds not"


def _of(rows: Sequence[Row], key: str) -> list[float]:
    """The rows' values of a figure."""
    return [share for row in rows if (share := scalar(row, key)) is not None]
