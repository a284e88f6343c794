"""The protocol of a task: what a study needs to train it with any optimizer."""

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bandwise.optim import _checks

Split = Literal["train", "val", "test"]
Direction = Literal["min", "max"]

PROBE_SIZE = 512
"""The largest number of labels in a ``Task.probe``."""


@dataclass(frozen=True)
class Recipe:
    """How a task is trained by default. It is the same for every optimizer.

    The learning rate first warms up linearly. Then it falls as a cosine to ``min_lr_factor`` times
    its peak, as in nanoGPT. With ``milestones`` it falls in steps instead, as torch's
    ``MultiStepLR``.

    Attributes:
        steps: optimizer steps in a run.
        lr: peak learning rate.
        warmup: the fraction of ``steps`` that warms up, in [0, 1).
        min_lr_factor: the last learning rate over the peak, at the end of the cosine.
        milestones: fractions of ``steps`` after which the learning rate is multiplied by ``gamma``,
            such as (0.3, 0.6, 0.8); they rise, and lie within [``warmup``, 1).
        gamma: the factor at each milestone, in [0, 1].
        grad_clip: the largest gradient norm; ``None``: no clipping.
        betas: for every optimizer that takes ``betas``; ``None``: the optimizer's own default.
        weight_decay: for every optimizer with decoupled decay; ``None``: its own default.
        evals: the number of evaluations and checkpoints in a run, evenly spread.
        autocast: ``"bfloat16"``: forward passes on a GPU run under autocast; ``None``: they do not.

    Raises:
        TypeError: a number is of the wrong type.
        ValueError: a number is out of range.
    """

    steps: int
    lr: float
    warmup: float = 0.05
    min_lr_factor: float = 0.1
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    grad_clip: float | None = 1.0
    betas: tuple[float, float] | None = None
    weight_decay: float | None = None
    evals: int = 25
    autocast: Literal["bfloat16"] | None = None

    def __post_init__(self) -> None:
        _checks.whole("steps", self.steps, low=1)
        _checks.whole("evals", self.evals, low=1)
        _checks.number("lr", self.lr, low=0)
        _checks.number("warmup", self.warmup, low=0, below=1)
        _checks.number("min_lr_factor", self.min_lr_factor, low=0, high=1)
        _checks.number("gamma", self.gamma, low=0, high=1)
        if not isinstance(self.milestones, (tuple, list)):
            raise TypeError(f"milestones must be a tuple of numbers, got {self.milestones!r}")
        for milestone in self.milestones:
            _checks.number("a milestone", milestone, low=self.warmup, below=1)
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, got {self.milestones!r}")
        if self.grad_clip is not None:
            _checks.number("grad_clip", self.grad_clip, low=0)


class Task(ABC):
    """Something to train. Write a subclass in a file of your own, then run
    ``bandwise compare path/to/file.py:MyTask``.

    A study makes the task once for each run. The constructor takes the task's options as keyword
    arguments with defaults: ``bandwise compare … --size paper`` passes ``size="paper"``. A value
    must fit the argument's annotation or, where there is none, the type of its default.

    Everything in a task must depend on its options and on the arguments alone. Then a run can be
    repeated, and an unfinished run goes on where it stopped. An edit of the task's file starts its
    runs anew. So does an edit of a module that the file imports from its own folder.

    Attributes:
        name: the task's name in tables and reports.
        metric: the key in ``evaluate``'s result by which optimizers are compared.
        direction: whether a good ``metric`` is small (``"min"``) or large (``"max"``).
        splits: the held-out splits of ``evaluate``: ``("val",)`` or ``("val", "test")``. The first
            is evaluated during the training, the second once at the end.
        recipe: steps, learning rate and the rest, by default.
    """

    name: str
    metric: str = "loss"
    direction: Direction = "min"
    splits: tuple[Split, ...] = ("val",)
    recipe: Recipe

    @abstractmethod
    def model(self) -> nn.Module:
        """A new model with random weights. The global generators are seeded before the call."""

    @abstractmethod
    def batch(self, seed: int, step: int) -> Any:
        """The training batch of a step (from 1), a tensor or a tuple of tensors on the CPU.

        It must depend on ``seed`` and ``step`` alone. ``generator`` and ``epoch_indices`` help.
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The scalar that training minimises; ``batch`` lies on the model's device."""

    @abstractmethod
    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Figures of the model on a held-out split by name, ``metric`` among them.

        The model is in evaluation mode, on any device. Gradients are off.
        """

    def probe(self) -> tuple[Tensor, Tensor] | None:
        """Examples on which the lens watches the decisions of a classifier.

        Returns:
            (inputs, labels): held-out examples, always the same, on the CPU, with at most 512
            labels. ``model(inputs)`` gives logits (…, classes) for labels (…), int64: one for each
            example or token. ``None``: there is nothing to watch.
        """
        return None

    def plane(self) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """The part of the plane in which the lens draws the boundary between two classes.

        Returns:
            The lowest and the highest (x, y); ``None``: the task has no points in the plane.
        """
        return None

    def fingerprint(self) -> dict[str, str]:
        """Hashes, by name, of data that the options do not determine, such as a file's content.

        When one changes, a study starts its runs anew.
        """
        return {}


def perceptron(*widths: int, between: tuple[Callable[[], nn.Module], ...]) -> nn.Sequential:
    """Linear layers from each width to the next, and new modules ``between`` them."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), *(make() for make in between)]
    return nn.Sequential(*layers[: -len(between)])


def generator(seed: int, step: int) -> torch.Generator:
    """A CPU generator that depends on ``seed`` and ``step`` alone."""
    # torch's CPU generator reads only 32 bits of its seed, so both numbers are hashed into them.
    digest = hashlib.sha256(f"{seed} {step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4]))


def epoch_batch(
    data: Sequence[Tensor], batch_size: int, seed: int, step: int
) -> tuple[Tensor, ...]:
    """The training batch at ``step``: the same examples of each tensor, see ``epoch_indices``."""
    chosen = epoch_indices(len(data[0]), batch_size, seed, step)
    return tuple(tensor[chosen] for tensor in data)


def epoch_indices(n: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Indices of the training batch at ``step`` (from 1).

    Every epoch shuffles the ``n`` examples anew. Its incomplete last batch is left out.

    Returns:
        ``batch_size`` distinct indices below ``n``, int64.

    Raises:
        ValueError: there are fewer examples than ``batch_size``.
    """
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size must lie between 1 and the {n} examples, got {batch_size}")
    epoch, position = divmod(step - 1, n // batch_size)
    order = torch.randperm(n, generator=generator(seed, epoch))
    return order[position * batch_size : (position + 1) * batch_size]
