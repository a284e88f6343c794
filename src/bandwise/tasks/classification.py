"""The common part of classification tasks: a fixed split, batches, loss and error."""

import hashlib
from typing import TypeAlias

import torch
from torch import Tensor, nn

from bandwise.optim import _checks
from bandwise.tasks.task import PROBE_SIZE, Split, Task, epoch_batch, generator

Data: TypeAlias = dict[Split, tuple[Tensor, Tensor]]
# More images at once do not fit into the memory of a small machine.
_AT_A_TIME = 1024


class Classification(Task):
    """A classifier trained with cross-entropy.

    A batch is (inputs, labels), float32 and int64.

    The figures are ``loss``, the mean cross-entropy, and ``error``, the fraction of wrong answers.
    Optimizers are compared by ``error``. The loss spreads less across seeds. But late in training
    it rises with the model's confidence, while the error still falls: it can prefer the worse
    classifier.

    Args:
        data: for each split the inputs, example first, and their classes, int64.
        batch_size: examples in a training batch.
    """

    metric = "error"
    splits = ("val", "test")

    def __init__(self, data: Data, batch_size: int) -> None:
        self._data = data
        _checks.number("batch_size", batch_size, low=1, high=len(data["train"][0]))
        self.batch_size = batch_size

    def batch(self, seed: int, step: int) -> tuple[Tensor, ...]:
        return epoch_batch(self._data["train"], self.batch_size, seed, step)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, labels = batch
        return nn.functional.cross_entropy(model(inputs), labels)

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        device = next(model.parameters()).device
        inputs, labels = (t.to(device) for t in self._data[split])
        logits = torch.cat([model(some) for some in torch.split(inputs, _AT_A_TIME)])
        return {
            "loss": nn.functional.cross_entropy(logits, labels).item(),
            "error": (logits.argmax(1) != labels).float().mean().item(),
        }

    def probe(self) -> tuple[Tensor, Tensor]:
        inputs, labels = self._data["val"]
        # Evenly spread, because they are sorted by class.
        count = min(PROBE_SIZE, len(labels))
        chosen = torch.arange(count) * len(labels) // count
        return inputs[chosen], labels[chosen]

    def fingerprint(self) -> dict[str, str]:
        hashed = hashlib.sha256()
        for inputs, labels in self._data.values():
            hashed.update(inputs.numpy().tobytes() + labels.numpy().tobytes())
        return {"data": hashed.hexdigest()}


def in_fifths(inputs: Tensor, labels: Tensor) -> Data:
    """Split each class, always alike: three fifths train, one fifth validates, one tests."""
    shuffled = torch.randperm(len(labels), generator=generator(seed=0, step=0))
    parts = []
    for label in range(int(labels.max()) + 1):
        of_class = shuffled[labels[shuffled] == label]
        fifth = len(of_class) // 5
        parts.append(torch.split(of_class, [fifth, fifth, len(of_class) - 2 * fifth]))
    val, test, train = map(torch.cat, zip(*parts, strict=True))
    chosen: dict[Split, Tensor] = {"train": train, "val": val, "test": test}
    return {split: (inputs[indices], labels[indices]) for split, indices in chosen.items()}
