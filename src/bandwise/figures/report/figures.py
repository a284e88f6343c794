"""Every figure of a study. What is drawn comes from stored results, and plotly does the drawing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bandwise.figures.figure import Figure
from bandwise.figures.report.curves import curve_figure
from bandwise.figures.report.differences import difference_figure
from bandwise.figures.report.schedules import schedule_figure
from bandwise.study.results import Results


def figures(results: Results) -> list[Figure]:
    """Every figure there is something to draw for, the most telling first."""
    evaluated = _keys((run.evals for run in results.runs), first=results.metric)
    drawn: list[Figure | None] = [difference_figure(results)]
    drawn += [curve_figure(results, "evals", key) for key in evaluated[:1]]
    drawn.append(curve_figure(results, "training", "train_loss"))
    drawn += [curve_figure(results, "evals", key, small=True) for key in evaluated[1:]]
    drawn += [schedule_figure(results, key) for key in ("lr", "alpha", "p")]
    return [figure for figure in drawn if figure is not None]


def _keys(tables: Iterable[Sequence[dict[str, float]]], first: str) -> list[str]:
    """What the rows hold beside the step, in the order met, ``first`` at the front."""
    keys = dict.fromkeys(key for rows in tables for row in rows for key in row if key != "step")
    return sorted(keys, key=lambda key: key != first)
