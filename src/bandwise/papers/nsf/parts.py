"""The NSF paper's parts: what is trained, and what is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bandwise.papers.nsf.scales import SCALES, Scale
from bandwise.papers.nsf.stored import condensed
from bandwise.papers.paper import Context
from bandwise.study import Results, compare

_HERE = "bandwise.papers.nsf.optimizers"
MUON = f"{_HERE}.MuonAdamW"
BY_LAYER = f"{_HERE}.nsf_by_layer"
LION = "pytorch_optimizer.Lion"


def exponent(p: float) -> str:
    """NSF with a fixed exponent."""
    return f"nsf:p={p:g}"


def cycled(
    high: float, low: float, period: int, shape: str = "cosine", scale: str | None = None
) -> str:
    """NSF with a cycled exponent."""
    shaped = "" if shape == "cosine" else f",shape={shape}"
    scaled = "" if scale is None else f",scale={scale}"
    return f"nsf:p=cyclic({high:g},{low:g},{period}{shaped}){scaled}"


def _study(
    context: Context,
    name: str,
    task: str,
    optimizers: Sequence[str],
    steps: int,
    seeds: int,
    lens: bool = False,
    **options: Any,
) -> Results:
    context.console.print(f"{name}: {task}, {len(optimizers)} optimizers, {steps} steps")
    return compare(
        task,
        optimizers,
        seeds=context.seeds or seeds,
        steps=steps,
        out=context.folder / name,
        jobs=context.jobs,
        device=context.device,
        lens=lens,
        task_options=options,
        console=context.console,
    )


def others(scale: Scale) -> list[str]:
    """NAdam, Lion and Muon with the baseline's decay and learning rate, Lion's as its authors
    advise: a tenth of the rate, ten times the decay."""
    return [
        "nadam:weight_decay=0.1,decoupled_weight_decay=True",
        f"{LION}:lr={scale.lr / 10:g},weight_decay=1.0",
        MUON,
    ]


def lead(context: Context) -> dict[str, Any]:
    """Exponents fixed, cycled and moving once, and other optimizers, with AdamW's settings."""
    scale = SCALES[context.scale]
    optimizers = [
        "adamw",
        *map(exponent, (-0.5, 0, 0.25, 0.5, 0.6, 0.7, 0.85, 1)),
        cycled(0.5, -0.25, scale.period),
        cycled(0.9, 0.5, scale.period),
        "nsf:p=linear(0.9,0.5)",
        "nsf:p=linear(0.5,0.9)",
        *others(scale),
    ]
    results = _study(
        context,
        "lead",
        "shakespeare-char",
        optimizers,
        scale.steps,
        scale.seeds,
        size=scale.size,
    )
    return condensed(results)


def ablation(context: Context) -> dict[str, Any]:
    """The default cycle with one of its period, shape, range and scale changed at a time."""
    scale = SCALES[context.scale]
    period = scale.short_steps // 5
    optimizers = [
        "adamw",
        cycled(0.5, -0.25, period),
        *(cycled(0.5, -0.25, other) for other in (period // 4, scale.short_steps // 2)),
        *(cycled(0.5, -0.25, period, shape) for shape in ("triangular", "sawtooth", "square")),
        *(cycled(high, low, period) for high, low in ((0.5, 0), (0.75, 0.25), (0.9, 0.5))),
        *(cycled(0.5, -0.25, period, scale=length) for length in ("sgd", "none")),
    ]
    results = _study(
        context,
        "ablation",
        "shakespeare-char",
        optimizers,
        scale.short_steps,
        scale.short_seeds,
        size=scale.size,
    )
    return condensed(results)
