"""What quantities are to the recorder, and what the recorder shows them of a step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Traced:
    """A parameter in a step of its optimizer.

    Attributes:
        name: its name in the model.
        param: the parameter itself. Do not change it.
        grad: the gradient that the optimizer is given, after clipping and before any filter.
            ``None`` where there is none in this step, or a sparse one.
        grad_scale: what ``grad`` is still multiplied by: a ``GradScaler`` leaves the division to
            fused optimizers. 1 otherwise.
        group: its parameter group, with the ``lr`` of this step.
        state: the optimizer's state of it.
        decay: the share of the parameter that decoupled weight decay takes in this step, in [0, 1].
            AdamW's is lr · weight_decay. See ``bandwise.lens.decay``.
    """

    name: str
    param: Tensor
    grad: Tensor | None
    grad_scale: float
    group: dict[str, Any]
    state: dict[str, Any]
    decay: float


@dataclass(frozen=True)
class Step:
    """A step of the optimizer.

    Attributes:
        number: the steps so far, this one included.
        optimizer: the one whose step it is: SMI, not its base.
        due: whether costly figures are measured at this step: one of every so many is due.
        tensors: all parameters of the optimizer.
    """

    number: int
    optimizer: Optimizer
    due: bool
    tensors: Sequence[Traced]


class Quantity(Protocol):
    """Something that is measured during training.

    It leaves the parameters, gradients and state alone. It draws random numbers from its own
    generator alone.
    """

    def before(self, step: Step) -> None:
        """Called when the gradients are there and the parameters have not moved."""

    def after(self, step: Step) -> None:
        """Called when the parameters have moved. SMI has filtered the gradients meanwhile."""

    def rows(self, closing: bool = False) -> list[Row]:
        """The rows that are finished since the last call; ``closing``: no step will follow.

        A row has ``step``, ``quantity``, ``tensor`` (a parameter's name, or ``"all"``), then
        figures: numbers, ``None`` where one is not defined, or short lists.
        """

    def state_dict(self) -> dict[str, Any]:
        """What the rows of later steps depend on, as tensors and plain data."""

    def load_state_dict(self, state: dict[str, Any], tensors: Sequence[Traced]) -> None:
        """Continue as the quantity that gave ``state``.

        Args:
            state: its tensors may be on any device.
            tensors: all parameters of the optimizer.
        """


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode without gradients. At the end every module has its own mode again.

    Yields:
        The device of the model.
    """
    # A frozen part may be in evaluation mode while the rest trains.
    modes = [(module, module.training) for module in model.modules()]
    first = next(model.parameters(), None)
    model.eval()
    try:
        with torch.no_grad():
            yield first.device if first is not None else torch.device("cpu")
    finally:
        for module, training in modes:
            module.training = training
