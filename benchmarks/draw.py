"""A benchmark as pictures: cost against size, the floor drawn, from stored results alone."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bandwise.figures.figure import line
from bandwise.files import replacing
from benchmarks.results import Bench, Case, Law, Quartiles, Row
from benchmarks.table import law

_MARKERS = "osD^vP"
_FLOOR_DASHES = ("--", ":", "-.")
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "bandwise",  # The same results give the same file.
}


def draw(results: Bench, folder: Path) -> list[Path]:
    """Write ``bench-SWEEP.svg`` into ``folder`` for every sweep over sizes; return the paths."""
    return [
        _drawn(results, name, cases, folder / f"bench-{name}.svg")
        for name, cases in results.sweeps().items()
    ]


def _drawn(results: Bench, name: str, cases: Sequence[Case], path: Path) -> Path:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.add_subplot()
        floors = [row for row in cases[0].rows if row.against is None]
        others = [row for row in cases[0].rows if row.against is not None]
        for place, (row, marker) in enumerate(zip(others, _MARKERS, strict=False), 1):
            _line(axes, row, cases, line(place).colour, "-", marker)
        for row, dashes in zip(floors, _FLOOR_DASHES, strict=False):
            _line(axes, row, cases, "black", dashes, "")
        axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel="milliseconds a step")
        axes.grid(visible=True, which="major", color="#ddd", linewidth=0.6)
        axes.set_title(textwrap.fill(_finding(name, cases), 88), loc="left", fontsize=11)
        axes.legend(frameon=False)
        machine = results.machine
        figure.supxlabel(
            f"Medians and quartiles over rounds. {machine['device']}, {machine['processor']}, "
            f"{machine['threads']} threads, torch {machine['torch']}",
            fontsize=8,
            color="#555",
            x=0.01,
            ha="left",
        )
        with replacing(path) as temporary:
            # matplotlib's own date would make every file differ.
            figure.savefig(temporary, format="svg", metadata={"Date": None})
    return path


def _line(
    axes: Axes, row: Row, cases: Sequence[Case], colour: str, dashes: str, marker: str
) -> None:
    x = [case.parameters for case in cases]
    y = [Quartiles.of([1000 * s for s in case.row(row.name).seconds]) for case in cases]
    axes.plot(x, [q.median for q in y], dashes, color=colour, marker=marker, ms=5, label=row.name)
    axes.fill_between(
        x, [q.low for q in y], [q.high for q in y], color=colour, alpha=0.15, linewidth=0
    )


def _finding(name: str, cases: Sequence[Case]) -> str:
    """What the picture shows, in words, from the figures in it."""
    if name == "smi-parameters":
        return law(Law.fit(cases))
    largest = cases[-1]
    if largest.finding is None:
        return largest.title
    subject, rival = largest.finding
    times = [f"{_times(largest.ratio(subject, rival).median)} {rival}"]
    floor = largest.row(subject).against
    if floor:
        ratio = largest.ratio(subject, floor).median
        times.insert(0, f"{_times(ratio)} its floor ({floor})")
    return f"{subject}, at {largest.parameters:,} parameters: {', '.join(times)}"


def _times(ratio: float) -> str:
    return f"{ratio:.3g} times" if ratio >= 1 else f"1/{1 / ratio:.3g} of"
