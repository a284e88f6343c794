"""Table 5 as measured: AdamW, Lion, Sophia, SAM and Muon, and SMI around each of them."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from benchmarks.memory import state_bytes
from benchmarks.timing import Contender

from bandwise import tasks
from bandwise.study.training import Training
from bandwise.tasks import Task
from papers.paper import Context, Part
from papers.smi.parts.runs import TASK
from papers.smi.scales import SCALES
from papers.stored import condensed, rounded
from papers.timing import THREADS, in_turns

# Each has its usual part of AdamW's learning rate. The decays are chosen so that a step decays the
# weights as much as AdamW's does.
_BASES = {
    "AdamW": ("adamw", 1.0, ""),
    "Lion": ("pytorch_optimizer.Lion", 0.1, "weight_decay=1.0"),
    "Sophia": ("papers.smi.sam_sophia.sophia", 0.5, "betas=(0.96,0.99),weight_decay=0.2"),
    "SAM": ("papers.smi.sam_sophia.sam", 1.0, "weight_decay=0.1"),
    # Not in the paper's table. Its steps are as long as AdamW's.
    "Muon": ("papers.nsf.by_layer.MuonAdamW", 1.0, "weight_decay=0.1"),
}
FACTORS = (1.0, 0.5, 2.0)


def texts(lr: float) -> dict[str, dict[float, str]]:
    """Every optimizer's text for each factor of its learning rate, where AdamW's is ``lr``."""
    found: dict[str, dict[float, str]] = {}
    for around in ("", "SMI+"):
        for label, (name, part, options) in _BASES.items():
            more = f",{options}" if options else ""
            if around:
                name, more = f"smi-{name}", f"{more},min_ndim=1"
            found[around + label] = {
                factor: f"{name}:lr={factor * part * lr:g}{more}" for factor in FACTORS
            }
    return found


def _run(context: Context) -> dict[str, Any]:
    scale = SCALES[context.scale]
    task = tasks.load(TASK, scale.task_options)
    found = texts(task.recipe.lr)
    # AdamW at its own learning rate comes first: the baseline.
    results = context.compare(
        TASK,
        [text for by_factor in found.values() for text in by_factor.values()],
        steps=scale.short_steps,
        seeds=scale.short_seeds,
        options=scale.task_options,
    )
    return {
        "study": condensed(results, curves=False),
        "texts": {
            label: {str(factor): text for factor, text in by_factor.items()}
            for label, by_factor in found.items()
        },
        "threads": THREADS,
        "steps": _steps(context, task, {label: by[1.0] for label, by in found.items()}),
    }


def _steps(context: Context, task: Task, texts: dict[str, str]) -> dict[str, Any]:
    """The time of a study's training step, in turns, and the bytes of state kept between steps."""
    # One batch for all: data must not take part in the times.
    batch = [each.to(context.device) for each in task.batch(0, 1)]
    trainings = {
        label: Training(task, text, device=context.device) for label, text in texts.items()
    }
    seconds = in_turns(
        # Sophia estimates its Hessian at one step of ten.
        [
            Contender(label, partial(each.train_step, batch), calls=10)
            for label, each in trainings.items()
        ],
        SCALES[context.scale].rounds,
        torch.device(context.device),
    )
    return {
        label: {
            "seconds": rounded(seconds[label]),
            "state_bytes": state_bytes(each.optimizer),
            "parameters": sum(p.numel() for p in each.model.parameters()),
        }
        for label, each in trainings.items()
    }


PART = Part("optimizers", "Beside modern optimizers, and around them", _run, ("pytorch_optimizer",))
