"""Shares of a trained model's activations, such as those near zero: Table 3 of the SMI paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from bandwise.figures.dots import Dots, dot_plot
from bandwise.figures.figure import Figure
from bandwise.figures.instruments.rows import Runs, Value, known, last_of
from bandwise.figures.words import lowest_to_highest, number
from bandwise.lens import Row


@dataclass(frozen=True)
class ActivationShare:
    """Draws one share at the end of training: a dot for each seed.

    The rows of ``activations`` have it as ``{key}``, and at other thresholds for zero as
    ``{key}_at_…``.
    """

    key: str
    title: str  # how the figure's title begins
    note: str

    def __call__(self, runs: Runs) -> Figure | None:
        """The figure; ``None`` if no row has the share."""
        last: dict[str, list[Row]] = {}
        means: dict[str, float] = {}
        dots = []
        for index, (label, some) in enumerate(runs.items()):
            last[label] = [row for rows in some for row in last_of(rows, "activations")]
            if shares := known(Value(self.key), last[label]):
                means[label] = mean = fmean(shares)
                values = [(number(share, ".2%"), share) for share in shares]
                dots.append(Dots(index, label, values, mean, None, f"mean {number(mean, '.2%')}"))
        if not dots:
            return None
        plot = dot_plot(dots, "share of values", {}).update_xaxes(tickformat=".1~%")
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
        values = [Value(key) for key in rows[0] if key.startswith(f"{self.key}_at_")]
        others = [value for value in values if len(known(value, rows)) == len(rows)]
        low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        if low == high or not others:
            return ""
        always = all(fmean(map(at, last[low])) < fmean(map(at, last[high])) for at in others)
        return ", at every threshold" if always else ", but at other thresholds not"
