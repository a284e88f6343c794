"""Beyond character transformers (sections 6.1.1 and 7.3.4): images, a series, a recurrent network,
a policy."""

from __future__ import annotations

from typing import Any

from bandwise.study import compare
from papers.paper import Context, Part
from papers.smi import scales
from papers.stored import condensed

DOMAINS = {
    "mnist-5k": "images, a convolutional network",
    "eeg": "a time series, forecast by a perceptron",
    "char-lstm": "characters, a recurrent network",
    "cart-pole": "reinforcement learning, a policy gradient",
}
OPTIMIZERS = ("adamw", "smi-adamw:min_ndim=1")


def _run(context: Context) -> dict[str, Any]:
    scale = scales.of(context)
    return {
        task: condensed(
            compare(
                task,
                OPTIMIZERS,
                seeds=context.seeds or scale.domain_seeds,
                steps=steps,
                out=context.folder / task,
                jobs=context.jobs,
                device=context.device,
                console=context.console,
            ),
            curves=False,
        )
        for task, steps in scale.domain_steps.items()
    }


PART = Part("domains", "Other domains", _run)
