"""The measures of a stored run for claims and tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from bandwise.lens.quantities.decisions import aligned
from papers.stored import Measure


def rate_slope(run: dict[str, Any]) -> float | None:
    """The slope of log step against log rate of sign changes of the gradient, over coordinates.

    It is the mean over the run's windows. Below 0 the optimizer favours coordinates whose gradient
    seldom changes sign.
    """
    rows = [row["rate_slope"] for row in run["lens"] if row["quantity"] == "temporal"]
    known = [row for row in rows if row is not None]
    return statistics.fmean(known) if known else None


def in_percent(name: str) -> Measure:
    """A rate at the end of a run, in percent."""
    return lambda run: 100 * float(run["final"][name])


def seconds_per_step(run: dict[str, Any]) -> float:
    """The time of a training step."""
    return float(run["seconds_per_step"])


def decisions(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The lens's rows about a classifier's decisions, one for each evaluation."""
    return [row for row in run["lens"] if row["quantity"] == "decisions"]


def aligned_at(run: dict[str, Any]) -> float | None:
    """The first evaluated step whose decisions agree with the run's last on 90% of the examples."""
    return aligned(decisions(run)).step


def loss_at(accuracy: Mapping[int, float]) -> Measure:
    """The loss at the first evaluation that reaches a target accuracy, given by seed."""

    def loss(run: dict[str, Any]) -> float | None:
        rows = (row for row in decisions(run) if row["accuracy"] >= accuracy[run["seed"]])
        return next((float(row["loss"]) for row in rows), None)

    return loss
