"""A multilayer perceptron on scikit-learn's digits. A run takes seconds."""

import functools

import torch
from pydantic import PositiveInt
from torch import nn

from bandwise.tasks.classification import Classification, Data, in_fifths
from bandwise.tasks.task import Recipe, perceptron


class Digits(Classification):
    """Classify scikit-learn's 1,797 digits of 8 x 8 pixels.

    Args:
        batch_size: images in a training batch.
        width: units in each of the two hidden layers.
    """

    name = "digits"
    recipe = Recipe(steps=3000, lr=2e-3)

    def __init__(self, batch_size: PositiveInt = 64, width: PositiveInt = 128) -> None:
        super().__init__(_images(), batch_size)
        self.width = width

    def model(self) -> nn.Module:
        between = (nn.ReLU, functools.partial(nn.Dropout, 0.5))
        return perceptron(64, self.width, self.width, 10, between=between)


@functools.cache
def _images() -> Data:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().div_(16)
    return in_fifths(images, torch.from_numpy(labels).long())
