"""Plans of the cases. A case is set up only when its turn comes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn
from torch.optim import Optimizer

from bandwise.tasks.gpt import GPT, GPTConfig
from benchmarks.timing import Contender, Rounds

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Attributes:
        rounds: the rounds of every case.
        sides: the sides of the single square matrices.
        gpt: the model whose matrices the optimizers step.
        batch: the number of sequences in a batch of a whole training step.
        stacks: the number of matrices in every stack, in the sweep over parameters.
        stack_side: the side of a matrix of a stack.
    """

    rounds: Rounds
    sides: tuple[int, ...]
    gpt: GPTConfig = field(default_factory=partial(GPTConfig, vocabulary=65))
    batch: int = 64
    stacks: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    stack_side: int = 1024


FULL = Extent(
    Rounds(warmup=2, least=5, most=50, seconds=20),
    sides=(64, 128, 256, 512, 1024, 2048, 4096, 8192),
)
QUICK = Extent(
    Rounds(warmup=1, least=3, most=10, seconds=2),
    sides=(64, 128, 256, 512, 1024),
    stacks=(1, 4, 16, 64),
)


@dataclass
class Lineup:
    """The contenders of a case, and those that could not take part.

    Attributes:
        contenders: the contenders to time.
        absent: the reason of each one that could not take part, by name.
        renew: runs at the start of every round.
    """

    contenders: list[Contender]
    absent: dict[str, str] = field(default_factory=dict)
    renew: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Plan:
    """A case that is not measured yet. Its attributes are those of ``benchmarks.results.Case``."""

    title: str
    parameters: int
    build: Callable[[], Lineup]
    note: str = ""
    sweep: str | None = None
    finding: tuple[str, str] | None = None
    added: bool = False


class Workload:
    """Parameters whose gradients are new in every round and the same for every contender.

    The contenders share the parameters, because their values do not change the cost of a step. Each
    contender keeps its own state.

    Gradients are Gaussian noise. Its length changes by about 30% from round to round, as in
    training. So a search cannot start from the last round's threshold.
    """

    def __init__(self, shapes: Iterable[torch.Size], device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(0)
        self._lengths = random.Random(0)
        self.params = [
            nn.Parameter(torch.randn(shape, generator=self._generator, device=device) / 50)
            for shape in shapes
        ]
        self._gradients = [torch.empty_like(param) for param in self.params]
        self.renew()
        self.restore()

    def renew(self) -> None:
        """Draw the gradients of the next round."""
        for gradient in self._gradients:
            length = math.exp(self._lengths.gauss(0, 0.3))
            gradient.normal_(std=length, generator=self._generator)

    def restore(self) -> None:
        """Restore the round's gradients, which a step may have changed."""
        for param, gradient in zip(self.params, self._gradients, strict=True):
            if param.grad is None:
                param.grad = torch.empty_like(param)
            param.grad.copy_(gradient)

    def stepping(
        self,
        name: str,
        optimizer: Optimizer,
        against: str | None = None,
        moves: int | None = None,
        steps: int = 1,
    ) -> Contender:
        """The optimizer's step as a contender."""
        return Contender(name, optimizer.step, self.restore, against, moves, steps)


def matrices(config: GPTConfig) -> list[torch.Size]:
    """The shapes of a GPT's matrices."""
    with torch.device("meta"):
        model = GPT(config)
    return [param.shape for param in model.parameters() if param.ndim >= 2]


def count(shapes: Iterable[torch.Size]) -> int:
    """The number of parameters."""
    return sum(shape.numel() for shape in shapes)
