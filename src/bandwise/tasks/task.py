"""The protocol of a task: what a study needs to know to train it with any optimizer."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bandwise.optim import _checks

Split = Literal["train", "val", "test"]
Direction = Literal["min", "max"]

PROBE_SIZE = 512
"""The most examples that a ``Task.probe`` has."""


@dataclass(frozen=True)
class Recipe:
    """How a task is trained unless the user says otherwise; the same for every optimizer.

    The learning rate warms up linearly over the first ``warmup`` of the steps, then falls as a
    cosine to ``min_lr_factor`` times its peak, as in nanoGPT.

    Attributes:
        steps: optimizer steps in a run.
        lr: peak learning rate.
        warmup: fraction of ``steps`` spent warming up, in [0, 1).
        min_lr_factor: last learning rate over peak learning rate.
        grad_clip: largest gradient norm; ``None`` for no clipping.
        betas: given to every optimizer that takes ``betas``; ``None`` keeps its own default.
        weight_decay: given to every optimizer whose decay is decoupled; ``None`` keeps its own.
        evals: how many times a run is evaluated (and checkpointed), evenly spread.
        autocast: ``"bfloat16"`` runs forward passes on a GPU under autocast; ``None`` nowhere.
    """

    steps: int
    lr: float
    warmup: float = 0.05
    min_lr_factor: float = 0.1
    grad_clip: float | None = 1.0
    betas: tuple[float, float] | None = None
    weight_decay: float | None = None
    evals: int = 25
    autocast: Literal["bfloat16"] | None = None

    def __post_init__(self) -> None:
        _checks.whole("steps", self.steps, low=1)
        _checks.number("lr", self.lr, low=0)
        _checks.number("warmup", self.warmup, low=0, below=1)
        _checks.number("min_lr_factor", self.min_lr_factor, low=0, high=1)
        _checks.whole("evals", self.evals, low=1)
        if self.grad_clip is not None:
            _checks.number("grad_clip", self.grad_clip, low=0)


class Task(ABC):
    """Something to train. Write a subclass in a file of your own, then run
    ``bandwise compare path/to/file.py:MyTask``.

    A task is made once per run. Its constructor takes the task's options as keyword arguments
    with defaults; ``bandwise compare … --size paper`` passes ``size="paper"``. A value must fit the
    argument's annotation or, where there is none, the type of its default. Everything in a task
    must be a function of those options and of the arguments: that is what makes a run repeatable
    and lets an unfinished one go on where it stopped. An edit of its file, or of a module that the
    file imports from its own folder, starts its runs anew.

    Attributes:
        name: what tables and reports call the task.
        metric: the key of ``evaluate``'s result that optimizers are compared by.
        direction: whether a good ``metric`` is small (``"min"``) or large (``"max"``).
        splits: the held-out splits that ``evaluate`` knows: always ``"val"``, drawn as a curve
            while training, and ``"test"`` where there is one, evaluated once at the end.
        recipe: steps, learning rate and the rest, unless the user says otherwise.
    """

    name: str
    metric: str = "loss"
    direction: Direction = "min"
    splits: tuple[Split, ...] = ("val",)
    recipe: Recipe

    @abstractmethod
    def model(self) -> nn.Module:
        """A new model with random weights. torch's global generator is seeded before the call."""

    @abstractmethod
    def batch(self, seed: int, step: int) -> Any:
        """The training batch of a step (from 1), a tensor or a tuple of tensors on the CPU.

        It must depend on ``seed`` and ``step`` alone: see ``generator`` and
        ``epoch_indices``.
        """

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The scalar that training minimises; ``batch`` lies on the model's device."""

    @abstractmethod
    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        """Figures of the model on a held-out split, ``metric`` among them.

        The model is in evaluation mode and gradients are off. The model may lie on any device.
        """

    def probe(self) -> tuple[Tensor, Tensor] | None:
        """What a classifier's decisions are watched on by the lens: (inputs, labels), or ``None``.

        At most 512 held-out examples, always the same, on the CPU. ``model(inputs)`` gives logits
        (…, classes) for labels (…), int64: one an example, or one a token.
        """
        return None

    def plane(self) -> tuple[tuple[float, float], tuple[float, float]] | None:
        """Where the lens looks for the decision boundary of a classifier of points in the plane,
        of two classes: the lowest and the highest (x, y). ``None`` if there is none to look for."""
        return None

    def fingerprint(self) -> dict[str, str]:
        """Names and hashes of data that the options do not pin down, such as a file's content.

        A study starts its runs anew when they change.
        """
        return {}


def generator(seed: int, step: int) -> torch.Generator:
    """A CPU generator that depends on ``seed`` and ``step`` alone."""
    # torch's CPU generator reads 32 bits of its seed alone, so both numbers are hashed into them.
    digest = hashlib.sha256(f"{seed} {step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4]))


def epoch_indices(n: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Indices of the training batch at ``step`` (from 1): a fresh shuffle of ``n`` every epoch,
    the incomplete last batch left out.

    Returns:
        ``batch_size`` distinct indices below ``n``, int64.
    """
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size must lie between 1 and the {n} examples, got {batch_size}")
    epoch, position = divmod(step - 1, n // batch_size)
    order = torch.randperm(n, generator=generator(seed, epoch))
    return order[position * batch_size : (position + 1) * batch_size]
