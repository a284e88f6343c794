"""Beyond character transformers (sections 6.1.1 and 7.3.4): images, a series, a recurrent network,
a policy."""

from __future__ import annotations

from typing import Any

from papers.paper import Context, Part
from papers.smi.scales import SCALES
from papers.stored import condensed

DOMAINS = {
    "mnist-5k": "images, a convolutional network",
    "eeg": "a time series, forecast by a perceptron",
    "char-lstm": "characters, a recurrent network",
    "cart-pole": "reinforcement learning, a policy gradient",
}
_OWN_TASKS = {
    "eeg": "papers.smi.tasks.eeg.Eeg",
    "cart-pole": "papers.smi.tasks.cart_pole.CartPole",
}
ADAMW, SMI = "adamw", "smi-adamw:min_ndim=1"


def _run(context: Context) -> dict[str, Any]:
    scale = SCALES[context.scale]
    return {
        task: condensed(
            context.compare(
                _OWN_TASKS.get(task, task),
                (ADAMW, SMI),
                steps=steps,
                seeds=scale.domain_seeds,
                study=task,
            ),
            curves=False,
        )
        for task, steps in scale.domain_steps.items()
    }


PART = Part("domains", "Other domains", _run, needs=("matplotlib",))
