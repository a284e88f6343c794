"""Table 6 as far as it can be measured: what SMI adds to a training step, by size of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from benchmarks.memory import state_bytes
from benchmarks.timing import Contender, clock_of, interleaved
from benchmarks.training import Training, some_tokens
from torch import Tensor
from torch.optim import AdamW, Optimizer

from bandwise.optim.smi import SMI
from bandwise.tasks.gpt import GPTConfig
from papers.paper import Context, Part
from papers.smi import scales
from papers.stored import rounded

ADAMW, AROUND = "AdamW", "SMI around AdamW"


def _run(context: Context) -> dict[str, Any]:
    scale = scales.of(context)
    device = torch.device(context.device)
    # As studies train; a timing with more would depend on how busy the others are.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        sizes = [_measured(context, config, scale.batch, device) for config in scale.models]
    finally:
        torch.set_num_threads(threads)
    return {"batch": scale.batch, "sizes": sizes}


def _measured(
    context: Context, config: GPTConfig, batch: int, device: torch.device
) -> dict[str, Any]:
    torch.manual_seed(0)
    tokens = some_tokens(config, batch, device)
    training = {}
    for name, make in ((ADAMW, _adamw), (AROUND, _smi)):
        torch.manual_seed(0)
        training[name] = Training(config, make, tokens, autocast=device.type == "cuda")
    parameters = sum(param.numel() for param in training[ADAMW].model.parameters())
    context.console.print(f"{parameters:,} parameters", highlight=False)
    rows, _ = interleaved(
        [Contender(name, each.step) for name, each in training.items()],
        scales.of(context).rounds,
        clock_of(device),
    )
    return {
        "parameters": parameters,
        "width": config.width,
        "context": config.context,
        "seconds": {row.name: rounded(row.seconds) for row in rows},
        "state_bytes": {name: state_bytes(each.optimizer) for name, each in training.items()},
    }


def _adamw(params: Sequence[Tensor]) -> Optimizer:
    return AdamW(params, lr=1e-3)


def _smi(params: Sequence[Tensor]) -> Optimizer:
    return SMI(_adamw(params), alpha=0.3, min_ndim=1)


PART = Part("overhead", "Computational overhead", _run)
