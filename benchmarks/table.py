"""A benchmark as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.results import Bench, Case, Law, Quartiles, Row
from benchmarks.smi import AROUND, FUSED_AROUND

_NOISY = 1.25


def table(results: Bench) -> RenderableType:
    """All results, to print with a rich ``Console``. They fit 80 columns."""
    return Group(*_parts(results))


def _parts(results: Bench) -> Iterator[RenderableType]:
    machine = ", ".join(f"{key} {value}" for key, value in results.machine.items())
    yield Text(f"{results.command}\n{machine}\n")
    for case in results.cases:
        if case.sweep is None:
            yield _case(case)
    for cases in results.sweeps().values():
        yield _sweep(cases)
    if results.memory:
        yield _memory(results)
    for title, reason in results.skipped.items():
        yield Text(f"not measured: {title}: {reason}")
    noise = _noise(results)
    if noise:
        yield Text(noise, style="bold red")


def _case(case: Case) -> Table:
    counted = f"{case.parameters:,} parameters, {len(case.orders)} rounds"
    shown = _blank(f"{case.title}\n{counted}", [case.note, *_absences(case), *_law_of_one(case)])
    shown.add_column("", overflow="fold")
    shown.add_column("median ms", justify="right")
    shown.add_column("quartiles", justify="right")
    moving = any(row.moves for row in case.rows)
    if moving:
        shown.add_column("GB/s", justify="right")
    shown.add_column("added" if case.added else "ratio", justify="right")
    for row in case.rows:
        time = Quartiles.of(row.seconds)
        cells = [row.name, milliseconds(time.median)]
        cells.append(f"{milliseconds(time.low)} - {milliseconds(time.high)}")
        if moving:
            cells.append(f"{row.moves / time.median / 1e9:.3g}" if row.moves else "")
        shown.add_row(*cells, _ratio(case, row))
    return shown


def _sweep(cases: Sequence[Case]) -> Table:
    """A row for each size: the times of the floors and baselines, and the ratios of the rest."""
    first = cases[0]
    ordered = sorted(first.rows, key=lambda row: row.against is not None)
    notes = [first.note, f"Medians. {_compared_with(ordered)}"]
    if first.sweep == "smi-parameters":
        notes.append(f"{law(Law.fit(cases))}.")
    shown = _blank(first.title.partition(" on ")[0] + ", by number of parameters", notes)
    shown.add_column("parameters", justify="right", no_wrap=True)
    for row in ordered:
        shown.add_column(f"{row.name}{'' if row.against else ', ms'}", justify="right")
    for case in cases:
        cells = [
            f"{case.ratio(row.name, row.against).median:.3g}"
            if row.against
            else milliseconds(Quartiles.of(case.row(row.name).seconds).median)
            for row in ordered
        ]
        shown.add_row(f"{case.parameters:,}", *cells)
    return shown


def _compared_with(rows: Sequence[Row]) -> str:
    """A sentence about the denominator of each ratio in a sweep."""
    held: dict[str, list[str]] = {}
    for row in rows:
        if row.against:
            held.setdefault(row.against, []).append(row.name)
    if len(held) == 1:
        return f"Times in ms, and ratios to {next(iter(held))}."
    ratios = (f"to {against} ({'; '.join(names)})" for against, names in held.items())
    return f"Times in ms, and ratios {', '.join(ratios)}."


def _noise(results: Bench) -> str:
    """A warning, if the times differ too much over rounds."""
    times = [Quartiles.of(row.seconds) for case in results.cases for row in case.rows]
    noisy = sum(time.high > _NOISY * time.low for time in times)
    if 5 * noisy < len(times):
        return ""
    return (
        f"The upper quartile of {noisy} of {len(times)} times is over {_NOISY} times the lower: "
        "the machine was busy. Measure again, with nothing else running."
    )


def _memory(results: Bench) -> Table:
    shown = _blank("memory", [])
    shown.add_column("")
    shown.add_column("MB", justify="right")
    shown.add_column("ratio", justify="right")
    for footprint in results.memory:
        shown.add_row(
            footprint.name,
            f"{footprint.bytes / 1e6:,.3g}",
            f"{footprint.ratio:.3g} x {footprint.against}",
        )
    return shown


def milliseconds(seconds: float) -> str:
    """Milliseconds with three digits, or more before the point."""
    value = 1000 * seconds
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def law(fitted: Law) -> str:
    """A sentence about the paper's law of cost, fitted to the times."""
    return (
        f"Fitted: T = T_base (1 + {fitted.gamma:.3g} ln P), the paper's (18), R2 = "
        f"{fitted.r_squared:.2f}, where T_base is AdamW's step; the paper's, with 0.05, is a whole "
        "training step"
    )


def _ratio(case: Case, row: Row) -> str:
    if row.against is None:
        return ""
    ratio = case.ratio(row.name, row.against)
    if case.added:
        return f"{100 * (ratio.median - 1):+.1f}%"
    return f"{ratio.median:.3g} x {row.against}"


def _law_of_one(case: Case) -> list[str]:
    """The law's factor, from the time that SMI adds to a whole training step."""
    if not case.added:
        return []
    return [
        f"{row.name}: gamma = {excess / math.log(case.parameters):.2g} in the paper's (18)."
        for row in case.rows
        if row.against and row.name in (AROUND, FUSED_AROUND)
        for excess in [case.ratio(row.name, row.against).median - 1]
    ]


def _absences(case: Case) -> list[str]:
    return [f"{name}: not measured, {reason}." for name, reason in case.absent.items()]


def _blank(title: str, notes: Sequence[str]) -> Table:
    return Table(
        title=Text(title),
        caption=Text("\n".join(note for note in notes if note) + "\n"),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        show_edge=False,
    )
