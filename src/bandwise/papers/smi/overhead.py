"""Table 6 as far as it can be measured: what SMI adds to a training step, by size of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from bandwise.bench.timing import Contender, clock_of, interleaved
from bandwise.papers.paper import Context, Part
from bandwise.papers.smi import scales
from bandwise.papers.smi.optimizers import state_bytes
from bandwise.papers.stored import rounded
from bandwise.smi import SMI
from bandwise.tasks.gpt import GPT, GPTConfig

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
    tokens = torch.randint(
        config.vocabulary,
        (batch, config.context + 1),
        generator=torch.Generator().manual_seed(0),
    ).to(device)
    training = {}
    for name, make in ((ADAMW, _adamw), (AROUND, _smi)):
        torch.manual_seed(0)
        model = GPT(config).to(device)
        training[name] = (model, make(model))
    parameters = sum(param.numel() for param in training[ADAMW][0].parameters())
    context.console.print(f"{parameters:,} parameters", highlight=False)
    rows, _ = interleaved(
        [
            Contender(name, _step(model, optimizer, tokens))
            for name, (model, optimizer) in training.items()
        ],
        scales.of(context).rounds,
        clock_of(device),
    )
    return {
        "parameters": parameters,
        "width": config.width,
        "context": config.context,
        "seconds": {row.name: rounded(row.seconds) for row in rows},
        "state_bytes": {name: state_bytes(optimizer) for name, (_, optimizer) in training.items()},
    }


def _adamw(model: nn.Module) -> Optimizer:
    return AdamW(model.parameters(), lr=1e-3)


def _smi(model: nn.Module) -> Optimizer:
    return SMI(_adamw(model), alpha=0.3, min_ndim=1)


def _step(model: nn.Module, optimizer: Optimizer, tokens: Tensor) -> Callable[[], None]:
    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(
            tokens.device.type, torch.bfloat16, enabled=tokens.device.type == "cuda"
        ):
            logits = model(tokens[:, :-1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


PART = Part("overhead", "Computational overhead", _run)
