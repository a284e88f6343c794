"""A multilayer perceptron on points in the plane. Its decision boundary can be drawn."""

from __future__ import annotations

import functools

import torch
from torch import nn

from bandwise.optim import _checks
from bandwise.tasks.classification import Classification, Data, in_fifths
from bandwise.tasks.task import Recipe


class TwoMoons(Classification):
    """Classify the 2,000 points of scikit-learn's two moons, noise 0.2.

    Args:
        batch_size: points in a training batch.
        width: units in each of the two hidden layers.
    """

    name = "two-moons"
    recipe = Recipe(steps=2000, lr=3e-3)

    def __init__(self, batch_size: int = 64, width: int = 32) -> None:
        super().__init__(_moons(), batch_size)
        _checks.whole("width", width, 1)
        self.width = width

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(2, self.width),
            nn.ReLU(),
            nn.Linear(self.width, self.width),
            nn.ReLU(),
            nn.Linear(self.width, 2),
        )

    def plane(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """A little more than the range of the points."""
        return (-1.75, -1.25), (2.75, 1.75)


@functools.cache
def _moons() -> Data:
    from sklearn.datasets import make_moons

    points, labels = make_moons(n_samples=2000, noise=0.2, random_state=0)
    return in_fifths(torch.from_numpy(points).float(), torch.from_numpy(labels).long())
