"""How early a classifier decides as it does in the end, and where in the plane."""

import math
import statistics
from collections.abc import Mapping, Sequence

from bandwise.figures.dots import Dots, dot_plot
from bandwise.figures.figure import BASELINE, Figure, blank, line, plotly_text, transparent
from bandwise.figures.instruments.instrument import curve_figure, over_steps
from bandwise.figures.instruments.rows import Runs, Value, first_runs, rows_of, scalar, scalars
from bandwise.figures.words import lowest_to_highest
from bandwise.lens import Row
from bandwise.lens.quantities.decisions import LEVEL, agreeing, aligned

# The most boundaries of an optimizer that are drawn, and the side of each in pixels.
_COLUMNS, _SIDE = 6, 140


def _alignment(rows: Sequence[Row]) -> tuple[int, float] | None:
    """When a run first decided as at its last evaluation, and the part of the loss's fall then."""
    seen = [
        {"step": row["step"], "agreement": share, "loss": scalar(row, "loss")}
        for row in rows_of(rows, "decisions")
        if math.isfinite(share := scalar(row, "agreement"))
    ]
    found = aligned(seen)
    if found.step is None or found.loss_fall is None or math.isnan(found.loss_fall):
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
        dots.append(Dots(index, label, values, fall, None, f"median: {words}"))
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
    # A single evaluation agrees with itself.
    drawn = [c for c in over_steps(runs, "decisions", Value("agreement")) if len(c.x) > 1]
    if not drawn:
        return None
    reached = sorted(
        (at[0], curve.name)
        for curve in drawn
        if (at := [x for x, mean in zip(curve.x, curve.mean, strict=True) if mean >= LEVEL])
    )
    ends = dict.fromkeys(f"{name} by step {step:,.0f}" for step, name in reached[:1] + reached[-1:])
    title = f"Decisions are {LEVEL:.0%} the final ones: {'; '.join(ends) or 'never'}"
    note = "The share of examples put in the class that they are put in at the last evaluation."
    return curve_figure(
        "agreement", drawn, title, note, "agreement", references={f"{LEVEL:.0%}": LEVEL}
    )


def boundaries(runs: Runs) -> Figure | None:
    """The boundaries of each label's first run: for each label a row, for each step a column."""
    grids = first_runs(runs, _grids)
    if not grids:
        return None
    stored = sorted({step for grid in grids.values() for step in grid})
    columns = min(_COLUMNS, len(stored))
    steps = [stored[round(i * (len(stored) - 1) / max(columns - 1, 1))] for i in range(columns)]
    plot = blank(
        height=60 + _SIDE * len(grids),
        labels=0,
        rows=len(grids),
        cols=len(steps),
        column_titles=[f"step {step:,}" for step in steps],
        horizontal_spacing=0.015,
        vertical_spacing=0.1 / len(grids),
    )
    for place, (label, grid) in enumerate(grids.items(), start=1):
        colour = line(list(runs).index(label)).colour
        for column, step in enumerate(steps, start=1):
            if step not in grid:
                continue
            n, values = grid[step]["n"], grid[step]["values"]
            (left, right), (bottom, top) = grid[step]["x"], grid[step]["y"]
            plot.add_contour(
                z=[values[i : i + n] for i in range(0, n * n, n)],
                x0=left,
                dx=(right - left) / (n - 1),
                y0=bottom,
                dy=(top - bottom) / (n - 1),
                # One level makes two colours: none below it, a tint above.
                contours={"start": 0, "end": 0, "size": 1, "coloring": "fill"},
                colorscale=[[0, "rgba(0,0,0,0)"], [1, transparent(colour, 0.25)]],
                showscale=False,
                line={"color": colour, "width": 2},
                hoverinfo="skip",
                row=place,
                col=column,
            )
        plot.update_yaxes(title_text=plotly_text(label, 20), row=place, col=1)
    for update in (plot.update_xaxes, plot.update_yaxes):
        update(showticklabels=False, showgrid=False, ticks="", fixedrange=True)
        update(showline=True, mirror=True, linecolor=BASELINE)
    plot.update_layout(width=70 + _SIDE * len(steps), margin_t=32, hovermode="closest")
    left_out = f", {len(steps)} of {len(stored)} stored steps" if len(steps) < len(stored) else ""
    return Figure(
        "lens-boundary",
        _settled(grids, steps),
        "The line is where the classifier is undecided; the tinted side is class 1. Each row is an "
        f"optimizer, its first seed{left_out}. A boundary that is in place early and hardly moves "
        "later was aligned early.",
        plot,
    )


def _grids(rows: Sequence[Row]) -> dict[int, Row]:
    """The grids by step. A model that is not finite has none."""
    found = {}
    for row in rows_of(rows, "boundary"):
        values, *ends = (scalars(row, key) for key in ("values", "x", "y"))
        square = row.get("n") == math.isqrt(len(values)) > 1 and len(values) == row["n"] ** 2
        finite = all(map(math.isfinite, [*values, *ends[0], *ends[1]]))
        if square and finite and [len(end) for end in ends] == [2, 2]:
            found[row["step"]] = row
    return found


def _settled(grids: Mapping[str, Mapping[int, Row]], steps: Sequence[int]) -> str:
    """How much of the plane had its final class at the second step drawn, in words."""
    if len(steps) < 3:
        return f"The decision boundary at step {steps[-1]:,}"
    found = {}
    for label, grid in grids.items():
        ends = (grid.get(step, {}).get("values", []) for step in (steps[1], max(grid)))
        then, last = ([value > 0 for value in values] for values in ends)
        if len(then) == len(last):
            found[label] = agreeing(then, last)
    shares = f"{lowest_to_highest(found, '.0%')} of the plane" if found else "the boundary"
    return f"At step {steps[1]:,}, {shares} is in its final class"
