"""What the claims and tables measure of a stored run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from bandwise.lens.quantities.decisions import aligned
from papers.stored import Measure


def rate_slope(run: dict[str, Any]) -> float | None:
    """How a coordinate's step depends on how often its gradient changes sign.

    The slope of the logarithms, as the mean over the run's windows. Below 0 the optimizer favours
    coordinates whose gradient changes slowly.
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
    """What the lens recorded of a classifier's decisions, one row for each evaluation."""
    return [row for row in run["lens"] if row["quantity"] == "decisions"]


def aligned_at(run: dict[str, Any]) -> float | None:
    """The first evaluated step that decides nine in ten examples as the run's last does."""
    return aligned(decisions(run)).step


def loss_at(accuracy: Mapping[int, float]) -> Measure:
    """The loss at the first evaluation that is as accurate as a target, given by seed."""

    def loss(run: dict[str, Any]) -> float | None:
        rows = (row for row in decisions(run) if row["accuracy"] >= accuracy[run["seed"]])
        return next((float(row["loss"]) for row in rows), None)

    return loss
