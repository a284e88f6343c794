"""Forecast a time series: the next sample of an electroencephalogram from the last ones."""

from __future__ import annotations

import functools
import hashlib
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from bandwise.tasks import Recipe, Split, Task, epoch_batch


class Eeg(Task):
    """Forecast four channels of an EEG: a recording of 800 samples in the package matplotlib.

    A batch is (inputs, targets): windows of the standardised series, (batch_size, window, 4)
    float32, and the sample after each, (batch_size, 4). The first 60% of the series trains, the
    next 20% validates and the last 20% tests. A window lies in one part.

    ``loss`` is the mean squared error, in units of a channel's variance in the training part. The
    forecast "no change" has 0.46 on the validation part.

    Args:
        batch_size: windows in a training batch.
        window: samples in the model's input.
        width: units in the hidden layer.
    """

    name = "eeg"
    splits = ("val", "test")
    recipe = Recipe(steps=300, lr=5e-4)

    def __init__(
        self,
        batch_size: Annotated[int, Field(ge=1)] = 64,
        window: Annotated[int, Field(ge=1, le=100)] = 32,
        width: Annotated[int, Field(ge=1)] = 128,
    ) -> None:
        self.batch_size, self.window, self.width = batch_size, window, width
        series = _series()
        train, val, test = series[:480], series[480:640], series[640:]
        mean, std = train.mean(0), train.std(0)
        parts: dict[Split, Tensor] = {"train": train, "val": val, "test": test}
        self._data = {split: self._windows((part - mean) / std) for split, part in parts.items()}

    def model(self) -> nn.Module:
        return _Forecast(self.window, self.width)

    def batch(self, seed: int, step: int) -> tuple[Tensor, ...]:
        return epoch_batch(self._data["train"], self.batch_size, seed, step)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        return nn.functional.mse_loss(model(inputs), targets)

    def evaluate(self, model: nn.Module, split: Split) -> dict[str, float]:
        device = next(model.parameters()).device
        inputs, targets = (t.to(device) for t in self._data[split])
        return {"loss": self.loss(model, (inputs, targets)).item()}

    def fingerprint(self) -> dict[str, str]:
        return {"data": hashlib.sha256(_series().numpy().tobytes()).hexdigest()}

    def _windows(self, series: Tensor) -> tuple[Tensor, Tensor]:
        inputs = series.unfold(0, self.window, 1)[:-1].mT.contiguous()
        return inputs, series[self.window :]


class _Forecast(nn.Module):
    """The last sample plus the change, from a perceptron: (batch, window, 4) -> (batch, 4)."""

    def __init__(self, window: int, width: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            nn.Flatten(),
            nn.Linear(window * 4, width),
            nn.GELU(),
            nn.Dropout(0.5),
            nn.Linear(width, 4),
        )

    def forward(self, windows: Tensor) -> Tensor:
        out: Tensor = windows[:, -1] + self.change(windows)
        return out


@functools.cache
def _series() -> Tensor:
    """The recording, (samples, channels)."""
    import numpy as np
    from matplotlib import cbook

    path = cbook.get_sample_data("eeg.dat", asfileobj=False)
    return torch.from_numpy(np.fromfile(path, dtype="<f8").reshape(800, 4)).float()
