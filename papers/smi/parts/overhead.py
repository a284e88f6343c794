"""The measurable part of Table 6: the time that SMI adds to a training step, by model size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from benchmarks.memory import state_bytes
from benchmarks.timing import Contender
from benchmarks.training import Training, some_tokens
from torch import Tensor
from torch.optim import AdamW, Optimizer

from bandwise import SMI
from bandwise.tasks.gpt import GPTConfig
from papers.paper import Context, Part
from papers.smi.scales import SCALES
from papers.stored import rounded
from papers.timing import THREADS, in_turns

ALONE, WITHIN_SMI = "AdamW", "SMI around AdamW"


def _run(context: Context) -> dict[str, Any]:
    scale = SCALES[context.scale]
    sizes = [_measured(context, config, scale.batch) for config in scale.models]
    return {"threads": THREADS, "batch": scale.batch, "sizes": sizes}


def _measured(context: Context, config: GPTConfig, batch: int) -> dict[str, Any]:
    device = torch.device(context.device)
    torch.manual_seed(0)
    tokens = some_tokens(config, batch, device)
    training = {}
    for name, make in ((ALONE, _adamw), (WITHIN_SMI, _smi)):
        torch.manual_seed(0)
        training[name] = Training(config, make, tokens, autocast=device.type == "cuda")
    parameters = sum(param.numel() for param in training[ALONE].model.parameters())
    context.console.print(f"{parameters:,} parameters", highlight=False)
    seconds = in_turns(
        [Contender(name, each.step) for name, each in training.items()],
        SCALES[context.scale].rounds,
        device,
    )
    return {
        "parameters": parameters,
        "width": config.width,
        "context": config.context,
        "seconds": rounded(seconds),
        "state_bytes": {name: state_bytes(each.optimizer) for name, each in training.items()},
    }


def _adamw(params: Sequence[Tensor]) -> Optimizer:
    return AdamW(params, lr=1e-3)


def _smi(params: Sequence[Tensor]) -> Optimizer:
    return SMI(_adamw(params), alpha=0.3, min_ndim=1)


PART = Part("overhead", "Computational overhead", _run)
