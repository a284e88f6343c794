"""What quantities are to the recorder, and what the recorder shows them of a step."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Row: TypeAlias = dict[str, Any]


class Traced(NamedTuple):
    """A parameter in a step of its optimizer.

    Attributes:
        name: its name in the model.
        param: the parameter itself. Do not change it.
        grad: the gradient that the optimizer is given, after clipping and before any filter.
            ``None`` where there is none in this step, or a sparse one.
        grad_scale: what ``grad`` is still multiplied by: a ``GradScaler`` leaves the division to
            fused optimizers. 1 otherwise.
        group: its parameter group, with the ``lr`` of this step.
        decay: the share of the parameter that decoupled weight decay takes in this step, in [0, 1].
            AdamW's is lr · weight_decay. See ``bandwise.lens.decay``.
    """

    name: str
    param: Tensor
    grad: Tensor | None
    grad_scale: float
    group: dict[str, Any]
    decay: float


class Step(NamedTuple):
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


class Quantity:
    """Something that is measured during training. A subclass overrides what it needs.

    It leaves the parameters, gradients and state alone. It draws random numbers from a generator
    of its own.

    Attributes:
        name: stands in its rows as ``quantity``.
    """

    name: str

    def before(self, step: Step) -> None:
        """Called when the gradients are there and the parameters have not moved.

        The step may still fail. ``before`` is then called again, with a step of the same number.
        """

    def after(self, step: Step) -> None:
        """Called when the parameters have moved. SMI has filtered the gradients meanwhile."""

    def rows(self, closing: bool = False) -> dict[str, dict[str, Any]]:
        """What is known after a step, or ``closing``, after the last of all.

        Returns:
            For a parameter's name, or ``"all"``, its figures: numbers, NaN where one is not
            defined, or short lists.
        """
        return {}

    def state_dict(self) -> dict[str, Any]:
        """What the rows of later steps depend on, as tensors and plain data."""
        return {}

    def load_state_dict(self, state: dict[str, Any], tensors: Sequence[Traced]) -> None:
        """Continue as the quantity that gave ``state``. Its tensors may be on any device."""


def chosen(costs: Mapping[str, int], budget: int, generator: torch.Generator) -> list[str]:
    """Names that are drawn at random while their costs are within the budget, in their order."""
    names, kept = list(costs), set()
    for i in torch.randperm(len(names), generator=generator).tolist():
        if costs[names[i]] <= budget:
            budget -= costs[names[i]]
            kept.add(names[i])
    return [name for name in names if name in kept]


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
