"""Table 10 measured: one hyperparameter at a time is changed from the paper's best run."""

from __future__ import annotations

from typing import Any

from papers.paper import Context, Part
from papers.smi.parts.runs import ADAMW, TASK
from papers.smi.scales import SCALES
from papers.stored import condensed

_BEST = {"alpha": "cosine(0.1,0.5)", "beta": "0.99", "q": "0.25"}
# The names are those of Table 10.
_TRIED = {
    "Frequency threshold (q)": ("q", ("0.1", "0.4", "0.5", "0.75")),
    "EMA decay (β)": ("beta", ("0.9", "0.95", "0.999")),
    "Alpha schedule": ("alpha", ("linear(0.1,0.5)", "0.3")),
    "Alpha range": ("alpha", ("cosine(0.1,0.3)", "cosine(0.1,0.7)", "cosine(0.1,0.9)")),
}


def _text(**changes: str) -> str:
    settings = {**_BEST, **changes}
    return "smi-adamw:" + ",".join(f"{k}={v}" for k, v in settings.items()) + ",min_ndim=1"


BEST = _text()
VARIED = {
    name: {value: _text(**{key: value}) for value in values}
    for name, (key, values) in _TRIED.items()
}


def _run(context: Context) -> dict[str, Any]:
    scale = SCALES[context.scale]
    results = context.compare(
        TASK,
        [ADAMW, BEST, *(text for varied in VARIED.values() for text in varied.values())],
        steps=scale.short_steps,
        seeds=scale.short_seeds,
        options=scale.task_options,
    )
    return condensed(results, curves=False)


PART = Part("sensitivity", "Sensitivity to hyperparameters", _run)
