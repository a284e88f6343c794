"""A benchmark's figures: cost against size, beside the floor. They need only stored results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go

from bandwise.figures.figure import blank, line, plotly_text, transparent
from bandwise.files import replacing
from benchmarks.results import Bench, Case, Law, Quartiles, Row
from benchmarks.table import law

_MARKERS = ("circle", "square", "diamond", "triangle-down", "triangle-up", "pentagon")
_FLOOR_DASHES = ("dash", "dot", "dashdot")


def draw(results: Bench, folder: Path) -> list[Path]:
    """Write ``bench-SWEEP.html`` into ``folder`` for every sweep over sizes; return the paths."""
    return [
        write(figure, folder / f"bench-{name}.html") for name, figure in figures(results).items()
    ]


def write(figure: go.Figure, path: Path) -> Path:
    """Write a figure as a page that works offline."""
    with replacing(path) as temporary:
        temporary.write_text(figure.to_html(div_id=path.stem), encoding="utf-8")
    return path


def figures(results: Bench) -> dict[str, go.Figure]:
    """A figure for every sweep over sizes, by the sweep's name."""
    machine = results.machine
    note = (
        f"Medians and quartiles over rounds. {machine['device']}, {machine['processor']}, "
        f"{machine['threads']} threads, torch {machine['torch']}"
    )
    return {
        name: _figure(finding(name, cases), note, cases) for name, cases in results.sweeps().items()
    }


def _figure(title: str, note: str, cases: Sequence[Case]) -> go.Figure:
    others = [row for row in cases[0].rows if row.against is not None]
    floors = [row for row in cases[0].rows if row.against is None]
    figure = titled(blank(480, len(cases[0].rows)), title, note)
    for place, (row, marker) in enumerate(zip(others, _MARKERS, strict=False), 1):
        _add(figure, row, cases, line(place).colour, "solid", marker)
    for row, dash in zip(floors, _FLOOR_DASHES, strict=False):
        _add(figure, row, cases, "#000000", dash, None)
    figure.update_xaxes(type="log", title_text="parameters", showgrid=True, dtick=1)
    figure.update_yaxes(type="log", title_text="milliseconds a step", dtick=1)
    return figure


def titled(figure: go.Figure, title: str, note: str = "") -> go.Figure:
    """Give a figure a title, a note and a background. On a page of ours the page has them."""
    figure.update_layout(
        title={"text": plotly_text(title, 100), "font_size": 15, "x": 0, "xref": "paper"},
        paper_bgcolor="white",
        plot_bgcolor="white",
        margin={"t": 110, "b": 90},
    )
    if note:
        figure.add_annotation(
            text=plotly_text(note, 130), font_size=11, showarrow=False, align="left",
            x=0, xref="paper", xanchor="left", y=0, yref="paper", yanchor="top", yshift=-56,
        )  # fmt: skip
    return figure


def _add(
    figure: go.Figure, row: Row, cases: Sequence[Case], colour: str, dash: str, marker: str | None
) -> None:
    """A row's medians as a line, and its quartiles as a band around it."""
    x = [case.parameters for case in cases]
    y = [Quartiles.of([1000 * s for s in case.row(row.name).seconds]) for case in cases]
    figure.add_scatter(
        x=[*x, *reversed(x)],
        y=[*(q.low for q in y), *(q.high for q in reversed(y))],
        fill="toself", fillcolor=transparent(colour), line_width=0, mode="lines",
        hoverinfo="skip", showlegend=False,
    )  # fmt: skip
    figure.add_scatter(
        x=x,
        y=[q.median for q in y],
        name=plotly_text(row.name),
        mode="lines+markers" if marker else "lines",
        line={"color": colour, "dash": dash, "width": 2},
        marker={"symbol": marker or "circle", "size": 7},
    )


def finding(name: str, cases: Sequence[Case]) -> str:
    """A sentence about the figure of a sweep, with its numbers."""
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
