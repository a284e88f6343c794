"""Fit a sum of sines: the spectral bias, that networks learn low frequencies before high ones."""

import math
from collections.abc import Sequence

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from bandwise.optim import _checks
from bandwise.tasks.task import Recipe, Split, Task, epoch_batch, perceptron

_POINTS = 512


class Sines(Task):
    """Regress y(x) = Σ sin(2πkx) over the frequencies k, for x in [0, 1), by a perceptron.

    A batch is (x, y), each (batch_size, 1) float32. The training points are a grid of 512. The
    validation points lie halfway between them.

    The figures are ``loss``, the mean squared error, and ``error_k…`` for each k: the amplitude of
    frequency k in the residual r = model(x) - y at the n validation points,
    |2/n · Σ r(x) exp(-2πikx)|. In y it is 1. So the error is 1 for a model that has not learnt k,
    and 0 for one that has learnt its amplitude and phase. Other frequencies do not matter.

    Args:
        frequencies: whole numbers of periods in [0, 1), all different.
        batch_size: points in a training batch.
        width: units in each of the three hidden layers.
    """

    name = "sines"
    recipe = Recipe(steps=4000, lr=1e-2)

    def __init__(
        self,
        frequencies: Sequence[int] = (1, 2, 4, 8),
        batch_size: PositiveInt = 128,
        width: PositiveInt = 128,
    ) -> None:
        # A frequency beyond half the grid has the samples of a lower one.
        known = set(frequencies) & set(range(1, _POINTS // 2))
        if not known or len(known) < len(frequencies):
            raise ValueError(
                "frequencies must be different whole numbers from 1 to "
                f"{_POINTS // 2 - 1}, got {frequencies!r}"
            )
        _checks.number("batch_size", batch_size, low=1, high=_POINTS)
        self.frequencies, self.batch_size, self.width = tuple(frequencies), batch_size, width
        grid = torch.arange(_POINTS).unsqueeze(1) / _POINTS
        self._train = grid, self._target(grid)
        between = grid + 0.5 / _POINTS
        self._val = between, self._target(between)

    def model(self) -> nn.Module:
        return perceptron(1, self.width, self.width, self.width, 1, between=(nn.Tanh,))

    def batch(self, seed: int, step: int) -> tuple[Tensor, ...]:
        return epoch_batch(self._train, self.batch_size, seed, step)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, y = batch
        return nn.functional.mse_loss(model(x), y)

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        x, y = self._val
        residual = model(x.to(next(model.parameters()).device)).cpu().double() - y
        figures = {"loss": residual.square().mean().item()}
        for k in self.frequencies:
            wave = torch.polar(torch.ones_like(residual), -2 * math.pi * k * x.double())
            figures[f"error_k{k}"] = (residual * wave).mean().abs().item() * 2
        return figures

    def _target(self, x: Tensor) -> Tensor:
        return torch.stack([torch.sin(2 * math.pi * k * x) for k in self.frequencies]).sum(0)
