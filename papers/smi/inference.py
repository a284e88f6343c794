"""Table 1's inference speed: the trained models timed in turns on one machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from benchmarks.timing import Contender, clock_of, interleaved
from torch import Tensor, nn

from bandwise import tasks
from papers.paper import Context, Part
from papers.smi import runs, scales
from papers.stored import rounded, within

_PASSES = 10


def _run(context: Context) -> dict[str, Any]:
    beside = runs.beside(context)
    results = runs.study(beside)
    task = tasks.load(runs.TASK, scales.of(context).task_options)
    device = torch.device(context.device)
    inputs, _ = task.batch(0, 1)
    # Without a cache of keys and values, as in nanoGPT, a token costs a pass over the context.
    window = inputs[:1].to(device)
    names = [f"{run.optimizer}, seed {run.seed}" for run in results.runs]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows, _ = interleaved(
            [
                Contender(name, _tokens(runs.trained(beside, run), window))
                for name, run in zip(names, results.runs, strict=True)
            ],
            scales.of(context).rounds,
            clock_of(device),
        )
    finally:
        torch.set_num_threads(threads)
    seconds = {
        (run.optimizer, run.seed): np.array(row.seconds) / _PASSES
        for run, row in zip(results.runs, rows, strict=True)
    }
    seeds = results.seeds
    return {
        "rounds": len(rows[0].seconds),
        "seeds": seeds,
        "tokens_per_second": {
            text: [rounded(float(1 / np.median(seconds[text, seed]))) for seed in seeds]
            for text in runs.RUNS.values()
        },
        "faster": {
            text: [_faster(seconds[text, seed], seconds[runs.ADAMW, seed]) for seed in seeds]
            for text in list(runs.RUNS.values())[1:]
        },
        # Two models of one optimizer: what the method finds where nothing is to be found.
        "control": [
            _faster(seconds[runs.ADAMW, one], seconds[runs.ADAMW, other])
            for one, other in zip(seeds, [*seeds[1:], seeds[0]], strict=True)
            if one != other
        ],
    }


def _tokens(model: nn.Module, window: Tensor) -> Callable[[], None]:
    def read() -> None:
        with torch.no_grad():
            for _ in range(_PASSES):
                model(window)

    return read


def _faster(ours: Any, theirs: Any) -> dict[str, Any]:
    """How much faster, in percent: the median over rounds of paired ratios, its interval."""
    percent = (100 * (theirs / ours - 1)).tolist()
    return {"median": rounded(float(np.median(percent))), "interval": rounded(within(percent))}


PART = Part("inference", "Inference speed", _run)
