"""The sizes of the SMI paper's parts: on two processors, and on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.timing import Rounds

from bandwise.tasks.gpt import GPTConfig
from papers.paper import ScaleName


@dataclass(frozen=True)
class Scale:
    """The sizes of the parts.

    Attributes:
        task_options: the options of shakespeare-char.
        steps: the steps of the paper's Runs 0 to 5.
        thresholds: the training and the validation loss at which Table 7's counts of iterations
            end. With ``None`` they are the losses of our baseline at the shares of training where
            the paper's baseline reached its own.
        seeds: the number of seeds of Runs 0 to 5.
        short_steps: the steps of a run in the parts ``optimizers`` and ``sensitivity``.
        short_seeds: the number of seeds of these parts.
        domain_steps: the steps of a run of each task of the part ``domains``.
        domain_seeds: the number of seeds of this part.
        rounds: the rounds of timings.
        models: the models whose training step is timed with and without SMI.
        batch: the number of sequences in such a step.
    """

    task_options: Mapping[str, Any]
    steps: int
    thresholds: tuple[float, float] | None
    seeds: int
    short_steps: int
    short_seeds: int
    domain_steps: Mapping[str, int]
    domain_seeds: int
    rounds: Rounds
    models: tuple[GPTConfig, ...]
    batch: int


SCALES: dict[ScaleName, Scale] = {
    "small": Scale(
        task_options={},
        steps=1000,
        thresholds=None,
        seeds=4,
        short_steps=300,
        short_seeds=3,
        domain_steps={"mnist-5k": 600, "eeg": 300, "char-lstm": 600, "cart-pole": 100},
        domain_seeds=5,
        rounds=Rounds(warmup=2, least=5, most=200, seconds=30),
        models=tuple(
            GPTConfig(vocabulary=65, context=64, layers=3, heads=4, width=width, dropout=0.0)
            for width in (48, 96, 192, 384)
        ),
        batch=16,
    ),
    "paper": Scale(
        # The paper's baseline is nanoGPT on this corpus.
        task_options={"size": "paper", "corpus": "tinyshakespeare"},
        steps=5000,
        thresholds=(1.0, 1.5),
        seeds=4,
        short_steps=5000,
        short_seeds=4,
        domain_steps={"mnist-5k": 1500, "eeg": 300, "char-lstm": 3000, "cart-pole": 100},
        domain_seeds=5,
        rounds=Rounds(warmup=3, least=10, most=500, seconds=120),
        models=tuple(GPTConfig(vocabulary=65, width=width) for width in (192, 384, 768, 1536)),
        batch=64,
    ),
}
