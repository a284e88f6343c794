"""What an optimizer adds to a whole training step of the paper's GPT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bandwise.bench.plan import Extent, Lineup, Plan, count, matrices
from bandwise.bench.timing import Contender
from bandwise.tasks.gpt import GPT, GPTConfig

MakeOptimizer = Callable[[Sequence[Tensor]], Optimizer]


def training(extent: Extent, device: torch.device, makers: Mapping[str, MakeOptimizer]) -> Plan:
    """Forward, backward and step, with each of some optimizers; the first is the baseline."""
    return Plan(
        f"a training step of a GPT, batch {extent.batch}, bfloat16 autocast",
        count(matrices(extent.gpt)),
        partial(_build, extent, device, makers),
        f"Forward, backward and step. Time added to that with {next(iter(makers))}.",
        added=True,
    )


def _build(extent: Extent, device: torch.device, makers: Mapping[str, MakeOptimizer]) -> Lineup:
    config = extent.gpt
    shape = (extent.batch, config.context + 1)
    tokens = torch.randint(config.vocabulary, shape, device=device)
    baseline = next(iter(makers))
    contenders = [
        Contender(
            name,
            _training_step(config, make, tokens),
            against=None if name == baseline else baseline,
        )
        for name, make in makers.items()
    ]
    return Lineup(contenders)


def _training_step(config: GPTConfig, make: MakeOptimizer, tokens: Tensor) -> Callable[[], None]:
    """Each contender trains a model of its own, all on the same tokens."""
    model = GPT(config).to(tokens.device)
    optimizer = make(list(model.parameters()))
    read, wanted = tokens[:, :-1], tokens[:, 1:]

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(tokens.device.type, torch.bfloat16):
            logits = model(read)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step
