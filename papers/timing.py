"""Timings in turns. All contenders have the same number of threads, which is stored with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.stats
import torch
from benchmarks.timing import Contender, Rounds, clock_of, interleaved

# Studies train on one thread too. Times on several threads depend more on the machine's other work.
THREADS = 1


def in_turns(
    contenders: Sequence[Contender], rounds: Rounds, device: torch.device
) -> dict[str, list[float]]:
    """The seconds of a call in every round, for each contender by name."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        rows, _ = interleaved(contenders, rounds, clock_of(device))
    finally:
        torch.set_num_threads(before)
    return {row.name: list(row.seconds) for row in rows}


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of the median over many rounds."""
    if len(set(values)) == 1:
        return values[0], values[0]
    result = scipy.stats.bootstrap((values,), np.median, method="percentile", rng=0)
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
