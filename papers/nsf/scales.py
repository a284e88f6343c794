"""The sizes of the NSF paper's parts: on two processors, and on a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from papers.paper import ScaleName


@dataclass(frozen=True)
class Scale:
    """The sizes of everything that is trained.

    Attributes:
        size: the size of the models, as the tasks name it.
        lr: the peak learning rate of the character GPT, which is the task's.
        seeds: the number of seeds of a comparison.
        steps: the steps of a run in the part ``lead``.
        lengths: pairs of steps and number of seeds of the part ``steps``.
        period: the steps of a cycle in the part ``lead``.
        short_steps: the steps of a run in the parts ``ablation``, ``layers``, ``mechanism`` and
            ``tuned``.
        short_seeds: the number of seeds of ``ablation``, ``response`` and CIFAR-10.
        trials: the trials in every optimizer's tuning.
        image_steps: the steps of a run of MNIST-5k and of CIFAR-10.
        response_steps: the steps of a run in the part ``response``.
    """

    size: Literal["small", "paper"]
    lr: float
    seeds: int
    steps: int
    lengths: tuple[tuple[int, int], ...]
    period: int
    short_steps: int
    short_seeds: int
    trials: int
    image_steps: tuple[int, int]
    response_steps: int


SCALES: dict[ScaleName, Scale] = {
    "small": Scale(
        size="small",
        lr=8e-3,
        seeds=5,
        steps=1000,
        lengths=((500, 5), (2000, 5), (5000, 5)),
        period=200,
        short_steps=500,
        short_seeds=3,
        trials=16,
        image_steps=(1000, 400),
        response_steps=384,
    ),
    "paper": Scale(
        size="paper",
        lr=1e-3,
        seeds=5,
        steps=5000,
        lengths=((500, 5), (2000, 5), (5000, 5)),
        period=1000,
        short_steps=2000,
        short_seeds=5,
        trials=20,
        image_steps=(5000, 20000),
        response_steps=1536,
    ),
}
