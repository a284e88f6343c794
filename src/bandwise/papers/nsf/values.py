"""Figures of stored studies, and how two optimizers of one compare."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bandwise.papers.paper import Data
from bandwise.papers.stored import Figure, Values


def runs_of(study: Data, optimizer: str) -> list[dict[str, Any]]:
    """The runs of the one optimizer whose text starts so and then ends, or goes on with options.

    Raises:
        LookupError: there is none, or there are several.
    """
    texts = {run["optimizer"] for run in study["runs"]}
    found = [t for t in texts if t == optimizer] or [t for t in texts if t.startswith(optimizer)]
    if len(found) != 1:
        raise LookupError(f"one optimizer must start with {optimizer!r}, got {sorted(found)}")
    runs = (run for run in study["runs"] if run["optimizer"] == found[0])
    return sorted(runs, key=lambda run: int(run["seed"]))


def values(study: Data, optimizer: str, figure: Figure) -> Values:
    """The figure of an optimizer's runs, by seed; infinite where one diverged."""
    runs = runs_of(study, optimizer)
    return Values(tuple(math.inf if run["diverged"] else figure(run) for run in runs))


def differences(study: Data, optimizer: str, baseline: str, figure: Figure) -> Values:
    """The figure less the baseline's, by seed."""
    both = (values(study, name, figure).values for name in (optimizer, baseline))
    return Values(tuple(a - b for a, b in zip(*both, strict=True)))


def rate_slope(run: dict[str, Any]) -> float:
    """How the step of a coordinate goes with how often its gradient changes sign, both as
    logarithms: below 0 slow coordinates are favoured. The mean over the run's windows."""
    rows = [row["rate_slope"] for row in run["lens"] if row["quantity"] == "temporal"]
    known = [row for row in rows if row is not None]
    return float(np.mean(known)) if known else math.nan
