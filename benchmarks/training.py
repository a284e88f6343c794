"""The cost of a training step of the SMI paper's GPT, with several optimizers and with a lens."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from bandwise import Lens
from bandwise.tasks.gpt import GPT, GPTConfig
from benchmarks.plan import Extent, Lineup, Plan, count, matrices
from benchmarks.timing import Contender

MakeOptimizer = Callable[[Sequence[Tensor]], Optimizer]

# The lens's default.
_EVERY = 50
_UNWATCHED, _WATCHED = "AdamW", "AdamW, watched"


def training(extent: Extent, device: torch.device, makers: Mapping[str, MakeOptimizer]) -> Plan:
    """A training step with each of several optimizers. The first is the baseline."""
    return Plan(
        _title(extent.batch),
        count(matrices(extent.gpt)),
        partial(_build, extent, device, makers),
        f"Forward, backward and step. Time added to that with {next(iter(makers))}.",
        added=True,
    )


def watched(extent: Extent, device: torch.device) -> Iterator[Plan]:
    """The time that a lens adds to a training step, at its default settings.

    On a CPU the batch is one sequence. The lens adds a larger share to such a short step.
    """
    batch = extent.batch if device.type == "cuda" else 1
    yield Plan(
        f"{_title(batch)}, {_EVERY} of them",
        count(matrices(extent.gpt)),
        partial(_build_watched, extent.gpt, batch, device),
        f"Forward, backward and step, {_EVERY} times, of which the lens measures one.",
        added=True,
    )


def _title(batch: int) -> str:
    return f"a training step of a GPT, batch {batch}, bfloat16 autocast"


def _build(extent: Extent, device: torch.device, makers: Mapping[str, MakeOptimizer]) -> Lineup:
    tokens = some_tokens(extent.gpt, extent.batch, device)
    baseline = next(iter(makers))
    contenders = [
        Contender(
            name,
            Training(extent.gpt, make, tokens).step,
            against=None if name == baseline else baseline,
        )
        for name, make in makers.items()
    ]
    return Lineup(contenders)


def _build_watched(config: GPTConfig, batch: int, device: torch.device) -> Lineup:
    tokens = some_tokens(config, batch, device)
    trainings = [Training(config, AdamW, tokens) for _ in range(2)]
    return Lineup(
        [
            Contender(_UNWATCHED, trainings[0].steps),
            Contender(_WATCHED, trainings[1].watched_steps, against=_UNWATCHED),
        ]
    )


def some_tokens(config: GPTConfig, batch: int, device: torch.device) -> Tensor:
    """A random batch of sequences. Each has one token more than the context, for the targets."""
    return torch.randint(config.vocabulary, (batch, config.context + 1), device=device)


class Training:
    """A contender that trains its own model. All train on the same tokens.

    Args:
        config: the model's configuration.
        make: makes the optimizer from the parameters.
        tokens: the tokens of every step.
        autocast: whether the forward pass is in bfloat16.
    """

    def __init__(
        self, config: GPTConfig, make: MakeOptimizer, tokens: Tensor, autocast: bool = True
    ) -> None:
        self.model = GPT(config).to(tokens.device)
        self.optimizer = make(list(self.model.parameters()))
        self._tokens, self._autocast = tokens, autocast

    def step(self) -> None:
        """Forward, backward and step."""
        read, wanted = self._tokens[:, :-1], self._tokens[:, 1:]
        self.optimizer.zero_grad()
        with torch.autocast(self._tokens.device.type, torch.bfloat16, enabled=self._autocast):
            logits = self.model(read)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def steps(self) -> None:
        """The number of steps in which a lens measures once."""
        for _ in range(_EVERY):
            self.step()

    def watched_steps(self) -> None:
        """The same number of steps, with a lens that measures one of them."""
        # Otherwise the lens measures its first step too.
        with (
            tempfile.TemporaryDirectory() as folder,
            Lens(self.model, self.optimizer, every=_EVERY, out=folder, start=_EVERY),
        ):
            self.steps()
