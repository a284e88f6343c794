"""A multilayer perceptron on points in the plane. Its decision boundary can be drawn."""

import functools

import torch
from pydantic import PositiveInt
from torch import nn

from bandwise.tasks.classification import Classification, Data, in_fifths
from bandwise.tasks.task import Recipe, perceptron


class TwoMoons(Classification):
    """Classify the 2,000 points of scikit-learn's two moons, noise 0.2.

    Args:
        batch_size: points in a training batch.
        width: units in each of the two hidden layers.
    """

    name = "two-moons"
    recipe = Recipe(steps=2000, lr=3e-3)

    def __init__(self, batch_size: PositiveInt = 64, width: PositiveInt = 32) -> None:
        super().__init__(_moons(), batch_size)
        self.width = width

    def model(self) -> nn.Module:
        return perceptron(2, self.width, self.width, 2, between=(nn.ReLU,))

    def plane(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """A little more than the range of the points."""
        return (-1.75, -1.25), (2.75, 1.75)


@functools.cache
def _moons() -> Data:
    from sklearn.datasets import make_moons

    points, labels = make_moons(n_samples=2000, noise=0.2, random_state=0)
    return in_fifths(torch.from_numpy(points).float(), torch.from_numpy(labels).long())
