"""A multilayer perceptron on scikit-learn's digits. A run takes seconds."""

from __future__ import annotations

import functools

import torch
from torch import nn

from bandwise.optim import _checks
from bandwise.tasks.classification import Classification, Data, in_fifths
from bandwise.tasks.task import Recipe


class Digits(Classification):
    """Classify scikit-learn's 1,797 digits of 8 x 8 pixels.

    Args:
        batch_size: images in a training batch.
        width: units in each of the two hidden layers.
    """

    name = "digits"
    recipe = Recipe(steps=3000, lr=2e-3)

    def __init__(self, batch_size: int = 64, width: int = 128) -> None:
        super().__init__(_images(), batch_size)
        _checks.whole("width", width, 1)
        self.width = width

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(64, self.width),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(self.width, self.width),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(self.width, 10),
        )


@functools.cache
def _images() -> Data:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().div_(16)
    return in_fifths(images, torch.from_numpy(labels).long())
