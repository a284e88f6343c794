"""What a measurement is to the recorder: one small protocol, and what it is shown of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from torch import Tensor

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Traced:
    """A parameter in a step of its optimizer.

    Attributes:
        name: its name in the model.
        param: the parameter itself, not to be changed.
        grad: its gradient as the optimizer is given it, after clipping and before any filter;
            ``None`` where it has none in this step, or a sparse one.
        grad_scale: what ``grad`` is still multiplied by: a ``GradScaler`` leaves the division to
            fused optimizers. 1 otherwise.
        group: its parameter group, with this step's ``lr``.
        state: the optimizer's state of it.
        decay: the rate of decoupled weight decay, by which the optimizer shrinks it directly.
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
        number: counted from 1.
        due: whether it is one of every so many that costly figures are measured at.
        tensors: all parameters of the optimizer.
    """

    number: int
    due: bool
    tensors: Sequence[Traced]


class Quantity(Protocol):
    """Something that is measured during training.

    It must leave the parameters, gradients and state alone, and draw no number from a generator
    that is not its own.
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
        """What the rows of later steps depend on, as tensors and plain data; between two steps."""

    def load_state_dict(self, state: dict[str, Any], tensors: Sequence[Traced]) -> None:
        """Go on as the quantity that gave ``state``.

        Args:
            state: its tensors may lie on any device.
            tensors: all parameters of the optimizer.
        """
