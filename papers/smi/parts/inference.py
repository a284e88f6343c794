"""Table 1's inference speed. The trained models are timed in turns on one machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from benchmarks.timing import Contender
from torch import Tensor, nn

from bandwise import tasks
from papers.paper import Context, Part
from papers.smi.parts import runs
from papers.smi.scales import SCALES
from papers.stored import rounded
from papers.timing import THREADS, in_turns, median_interval

_PASSES = 10


def _run(context: Context) -> dict[str, Any]:
    beside = runs.beside(context)
    results = runs.study(beside)
    scale = SCALES[context.scale]
    device = torch.device(context.device)
    inputs, _ = tasks.load(runs.TASK, scale.task_options).batch(0, 1)
    # Like nanoGPT, the model caches no keys and values. Each token costs a pass over the context.
    window = inputs[:1].to(device)
    names = {(run.optimizer, run.seed): f"{run.optimizer}, seed {run.seed}" for run in results.runs}
    contenders = [
        Contender(name, _tokens(runs.trained(beside, run), window))
        for name, run in zip(names.values(), results.runs, strict=True)
    ]
    rounds = in_turns(contenders, scale.rounds, device)
    seconds = {key: np.array(rounds[name]) / _PASSES for key, name in names.items()}
    seeds = results.seeds
    return {
        "threads": THREADS,
        "rounds": len(next(iter(rounds.values()))),
        "seeds": seeds,
        "tokens_per_second": {
            text: [rounded(float(1 / np.median(seconds[text, seed]))) for seed in seeds]
            for text in runs.RUNS.values()
        },
        "faster": {
            text: [_faster(seconds[text, seed], seconds[runs.ADAMW, seed]) for seed in seeds]
            for text in list(runs.RUNS.values())[1:]
        },
        # Two models of one optimizer: the method must find no difference here.
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
    """The speedup in percent: the median over rounds of paired ratios, and its interval."""
    percent = (100 * (theirs / ours - 1)).tolist()
    interval = median_interval(percent)
    return {"median": rounded(float(np.median(percent))), "interval": rounded(interval)}


PART = Part("inference", "Inference speed", _run)
