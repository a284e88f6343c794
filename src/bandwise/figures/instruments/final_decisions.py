"""How early a classifier decides as it does in the end."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from bandwise.figures.dots import Dots, dot_plot
from bandwise.figures.figure import Figure
from bandwise.figures.instruments.instrument import curve_figure, over_steps
from bandwise.figures.instruments.rows import Runs, figure, rows_of, scalar
from bandwise.lens import Row
from bandwise.lens.quantities.decisions import LEVEL, aligned


def _alignment(rows: Sequence[Row]) -> tuple[int, float] | None:
    """When a run first decided as at its last evaluation, and the part of the loss's fall then."""
    seen = [
        {"step": row["step"], "agreement": share, "loss": scalar(row, "loss")}
        for row in rows_of(rows, "decisions")
        if (share := scalar(row, "agreement")) is not None
    ]
    found = aligned(seen)
    if found.step is None or found.loss_fall is None:
        return None
    return found.step, found.loss_fall


def alignment(runs: Runs) -> Figure | None:
    """How far the loss had fallen when each run first agreed with its last decisions."""
    dots: list[Dots] = []
    said = []
    for index, (label, some) in enumerate(runs.items()):
        found = [at for rows in some if (at := _alignment(rows))]
        if not found:
            continue
        step, fall = (statistics.median(column) for column in zip(*found, strict=True))
        words = f"by step {step:,.0f}, when the loss had made {fall:.0%} of its fall"
        said.append((fall, f"{label} {words}"))
        values = [(f"step {at:,}, {part:.0%} of the fall", part) for at, part in found]
        dots.append(Dots(index, label, "seeds", values, mean=fall, words=f"median: {words}"))
    if not dots:
        return None
    ends = dict.fromkeys(words for _, words in (min(said), max(said)))
    plot = dot_plot(
        dots, "share of its whole fall that the loss had made", {"start": 0, "all of it": 1}
    )
    plot.update_xaxes(tickformat=".0%")
    return Figure(
        "lens-alignment",
        f"Aligned with its last decisions at {LEVEL:.0%}: {'; '.join(ends)}",
        "When a run first put this many examples in the class that it puts them in at the end. "
        "Alignment is early where the dots lie far left: the decisions are nearly final and the "
        "loss is still high; or the model soon stopped learning, see its accuracy. Dots are seeds, "
        "the diamond is their median.",
        plot,
    )


def agreement(runs: Runs) -> Figure | None:
    """Agreement with the last evaluation, over steps."""
    drawn = over_steps(runs, "decisions", figure("agreement"))
    # A single evaluation agrees with itself.
    drawn = [curve for curve in drawn if len(curve.x) > 1]
    reached = sorted(
        (at[0], curve.name)
        for curve in drawn
        if (at := [x for x, mean in zip(curve.x, curve.mean, strict=True) if mean >= LEVEL])
    )
    ends = dict.fromkeys(
        f"{name} by step {step:,.0f}" for step, name in (reached[:1] + reached[-1:])
    )
    return curve_figure(
        "agreement",
        drawn,
        title=f"Decisions are {LEVEL:.0%} the final ones: {'; '.join(ends) or 'never'}",
        note="The share of examples put in the class that they are put in at the last evaluation.",
        y="agreement",
        references={f"{LEVEL:.0%}": LEVEL},
    )
