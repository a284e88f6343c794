"""The training loop: a task, an optimizer and a recipe, in memory.

Weights come from the seed; the batch and the dropout of a step from the seed and the step. So every
optimizer meets the same ones, and a resumed training ends as one that was never stopped.
"""

import bisect
import math
import random
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils._pytree import tree_map

from bandwise import tasks
from bandwise.study import by_name, spec
from bandwise.study.errors import StudyError
from bandwise.tasks import Recipe, Task


def learning_rate_factor(step: int, recipe: Recipe) -> float:
    """The learning rate at ``step`` (from 0) over its peak, as ``Recipe`` says."""
    warmup = math.ceil(recipe.warmup * recipe.steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if recipe.milestones:
        return recipe.gamma ** bisect.bisect_right(recipe.milestones, step / recipe.steps)
    progress = min(1.0, (step - warmup) / max(1, recipe.steps - warmup))
    end = recipe.min_lr_factor
    return end + (1 - end) * (1 + math.cos(math.pi * progress)) / 2


@contextmanager
def isolated(device: str) -> Iterator[None]:
    """Train on one thread, on which sums depend, and put the global generators back afterwards.

    They are Python's, NumPy's and torch's. A training on the CPU leaves those of CUDA alone.
    """
    threads, python, numpy = torch.get_num_threads(), random.getstate(), np.random.get_state()
    gpus = range(torch.cuda.device_count()) if torch.device(device).type == "cuda" else ()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(gpus):
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(python)
        np.random.set_state(numpy)


class Training:
    """A task trained with one optimizer.

    It sets the global generators of Python, NumPy and torch: see ``isolated``.

    Args:
        task: what is trained.
        optimizer: the optimizer's text, such as ``"smi-adamw:q=0.5"``.
        seed: of weights, batches and dropout.
        recipe: steps, learning rate and the rest; ``None``: the task's.
        device: where to train: ``"cpu"``, ``"cuda"``, …

    Attributes:
        model: the task's, on ``device``.
        optimizer: made for the model's parameters.
        step: the number of steps taken.

    Raises:
        ValueError: the optimizer cannot be made.
    """

    def __init__(
        self,
        task: Task,
        optimizer: str,
        seed: int = 0,
        *,
        recipe: Recipe | None = None,
        device: str = "cpu",
    ) -> None:
        self.task, self.seed, self.device = task, seed, torch.device(device)
        self.recipe, self.step = recipe or task.recipe, 0
        self._seed_generators(seed)
        self.model: nn.Module = task.model().to(self.device)
        named, lr = self.model.named_parameters(), self.recipe.lr
        self.optimizer = by_name.build(spec.parse(optimizer), named, lr, self.recipe)
        self._scheduler = LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, self.recipe)
        )

    def train_step(self, batch: Any = None) -> Tensor:
        """Take one step, on the task's batch or a given one; return the loss before the step.

        Raises:
            StudyError: the task's loss or the optimizer breaks its protocol.
        """
        self.step += 1
        self._seed_step()
        batch = self.task.batch(self.seed, self.step) if batch is None else batch
        batch = tree_map(lambda x: x.to(self.device) if isinstance(x, Tensor) else x, batch)
        losses: list[Tensor] = []

        def closure() -> Tensor:
            losses.append(self._gradients(batch))
            return losses[-1]

        self.model.train()
        # Most optimizers ask for the gradients once. Some ask at several points of a step.
        self.optimizer.step(closure)  # type: ignore[arg-type]
        if not losses:
            name = type(self.optimizer).__name__
            raise StudyError(f"{name}.step must call the closure, as those of torch.optim do")
        self._scheduler.step()
        self.optimizer.zero_grad()
        return losses[0]

    def _gradients(self, batch: Any) -> Tensor:
        """The loss at the present weights. The parameters get its gradients."""
        self._seed_step()
        self.optimizer.zero_grad()
        with self.autocast():
            loss = self.task.loss(self.model, batch)
        if not isinstance(loss, Tensor):
            raise StudyError(f"the task's loss must return a tensor, got {loss!r}")
        if loss.ndim > 0:
            raise StudyError(f"the task's loss must be a scalar, got shape {tuple(loss.shape)}")
        if not loss.requires_grad:
            raise StudyError("the task's loss must depend on the weights: it has no gradient")
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.grad_clip)
        return loss.detach()

    @torch.no_grad()
    def evaluate(self, split: tasks.Split) -> dict[str, float]:
        """The task's figures on a held-out split, named ``val_loss`` and the like.

        Raises:
            StudyError: the task's metric is not among them.
        """
        self.model.eval()
        with self.autocast():
            figures = self.task.evaluate(self.model, split)
        if not isinstance(figures, dict) or self.task.metric not in figures:
            wanted = f"a dict with its metric {self.task.metric!r}"
            raise StudyError(f"the task's evaluate must return {wanted}, got {figures!r}")
        return {f"{split}_{name}": float(value) for name, value in figures.items()}

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of forward passes, as the recipe says; on a CPU it changes nothing."""
        if self.recipe.autocast is None or self.device.type == "cpu":
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.recipe.autocast))

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` has given."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scheduler.load_state_dict(state["scheduler"])
        self.step = state["step"]

    def _seed_step(self) -> None:
        """Make dropout depend on the step alone. Its streams are those of the negative steps."""
        self._seed_generators(tasks.generator(self.seed, -self.step).initial_seed())

    def _seed_generators(self, seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed)
        if self.device.type == "cpu":
            # torch.manual_seed would also set CUDA's.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
