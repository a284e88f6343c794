"""What is measured of a stored run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def rate_slope(run: dict[str, Any]) -> float:
    """How the step of a coordinate goes with how often its gradient changes sign, both as
    logarithms: below 0 slow coordinates are favoured. The mean over the run's windows."""
    rows = [row["rate_slope"] for row in run["lens"] if row["quantity"] == "temporal"]
    known = [row for row in rows if row is not None]
    return float(np.mean(known)) if known else math.nan
