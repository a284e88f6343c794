"""The NSF paper's parts: their trainings and their stored data.

All optimizers of a part have the learning rate, schedule and hyperparameters of the task, unless
their text says otherwise. The first optimizer is the baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import joblib

from papers.nsf.authors import authors
from papers.nsf.scales import SCALES, Scale
from papers.nsf.with_cifar10 import with_cifar10
from papers.paper import Context, Part
from papers.stored import condensed

MUON = "papers.nsf.by_layer.MuonAdamW"
BY_LAYER = "papers.nsf.by_layer.nsf_by_layer"
FACTORED = "papers.nsf.factored.FactoredNSF"
LION = "pytorch_optimizer.Lion"
NADAM = "nadam:weight_decay=0.1,decoupled_weight_decay=True"
# Momentum SGD does not train at Adam's learning rates.
SGD_LR = 0.05


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


def _on_text(
    context: Context, name: str, optimizers: Sequence[str], steps: int, seeds: int
) -> dict[str, Any]:
    """The stored form of a comparison on the character GPT."""
    options = {"size": SCALES[context.scale].size}
    results = context.compare(
        "shakespeare-char", optimizers, steps=steps, seeds=seeds, study=name, options=options
    )
    return condensed(results, curves=False)


def others(scale: Scale) -> list[str]:
    """NAdam, Lion and Muon with the baseline's learning rate and decay.

    Lion has a tenth of the rate and ten times the decay, as its authors advise.
    """
    return [
        NADAM,
        f"{LION}:lr={scale.lr / 10:g},weight_decay=1.0",
        MUON,
    ]


def lead(context: Context) -> dict[str, Any]:
    """Fixed, cycled and moving exponents, and other optimizers, all with AdamW's settings."""
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
    return _on_text(context, "lead", optimizers, scale.steps, scale.seeds)


def ablation(context: Context) -> dict[str, Any]:
    """Our cycle from 1/2 to -1/4, with its period, shape, range and scale changed one at a time."""
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
    return _on_text(context, "ablation", optimizers, scale.short_steps, scale.short_seeds)


def steps(context: Context) -> dict[str, Any]:
    """AdamW and p = 0.7 over shorter and longer runs, one study for each length."""
    scale = SCALES[context.scale]
    return {
        str(length): _on_text(context, f"steps-{length}", ["adamw", exponent(0.7)], length, seeds)
        for length, seeds in scale.lengths
    }


def images(context: Context) -> dict[str, Any]:
    """MNIST-5k and CIFAR-10 with the lens: one study for each task."""
    scale = SCALES[context.scale]
    mnist, cifar10 = scale.image_steps
    return {
        "mnist-5k": _images(context, "mnist-5k", mnist, scale.seeds, {}),
        "cifar10": with_cifar10(
            context, lambda given: _images(context, "cifar10", cifar10, scale.short_seeds, given)
        ),
    }


def _images(
    context: Context, task: str, length: int, seeds: int, options: dict[str, Any]
) -> dict[str, Any]:
    period = length // 5
    optimizers = [
        "adamw",
        f"sgd:lr={SGD_LR:g}",
        "adam",
        *map(exponent, (0.7, 0, -0.25)),
        cycled(0.5, -0.25, period),
        cycled(0.9, 0.5, period),
    ]
    results = context.compare(
        task, optimizers, steps=length, seeds=seeds, study=task, lens=True, options=options
    )
    return condensed(results, curves=False, lens=("decisions",))


def layers(context: Context) -> dict[str, Any]:
    """The exponent 0.7 for one kind of layer, AdamW for the others."""
    scale = SCALES[context.scale]
    kinds = ("embedding", "attention", "feedforward")
    optimizers = ["adamw", *(f"{BY_LAYER}:{kind}=0.7" for kind in kinds), exponent(0.7)]
    return _on_text(context, "layers", optimizers, scale.short_steps, scale.seeds)


def mechanism(context: Context) -> dict[str, Any]:
    """The exponent 0.7 for one part of d: between rows, between columns, or the rest."""
    scale = SCALES[context.scale]
    parts = ("rows", "columns", "rest")
    optimizers = ["adamw", *(f"{FACTORED}:{part}=0.7" for part in parts), exponent(0.7)]
    return _on_text(context, "mechanism", optimizers, scale.short_steps, scale.seeds)


def tuned(context: Context) -> dict[str, Any]:
    """Every optimizer at its tuned learning rate and decay. All have the same budget.

    The task's own settings are tried first.
    """
    # This import needs optuna. The stored results must be readable without it.
    from bandwise.study.tune import TUNING_SEEDS, Range, Tuned, tune

    scale = SCALES[context.scale]
    usual = {
        "lr": Range(scale.lr / 4, scale.lr * 4, first=scale.lr),
        "weight_decay": Range(0.01, 1.0, first=0.1),
    }
    # Lion's authors advise a tenth of AdamW's rate and ten times its decay.
    lions = {
        "lr": Range(scale.lr / 40, scale.lr / 2.5, first=scale.lr / 10),
        "weight_decay": Range(0.1, 10.0, first=1.0),
    }
    spaces = {
        "adamw": usual,
        "nadam:decoupled_weight_decay=True": usual,
        LION: lions,
        MUON: usual,
        exponent(0.7): usual,
        cycled(0.5, -0.25, scale.short_steps // 5): usual,
        cycled(0.9, 0.5, scale.short_steps // 5): usual,
    }
    found: list[Tuned] = joblib.Parallel(n_jobs=_jobs(context))(
        joblib.delayed(tune)(
            "shakespeare-char",
            optimizer,
            space,
            scale.trials,
            out=context.folder / "tuning" / str(number),
            steps=scale.short_steps,
            device=context.device,
            task_options={"size": scale.size},
        )
        for number, (optimizer, space) in enumerate(spaces.items())
    )
    compared = _on_text(
        context, "tuned", [one.optimizer for one in found], scale.short_steps, scale.seeds
    )
    tuning = {name: asdict(one) for name, one in zip(spaces, found, strict=True)}
    budget = {"trials": scale.trials, "steps": scale.short_steps, "seeds": list(TUNING_SEEDS)}
    return {"budget": budget, "tuning": tuning, **compared}


def _jobs(context: Context) -> int:
    if context.jobs is not None:
        return context.jobs
    return 1 if context.device != "cpu" else joblib.cpu_count()


def response(context: Context) -> dict[str, Any]:
    """The frequencies that each exponent favours, one study for each task."""
    scale = SCALES[context.scale]
    length = scale.response_steps
    exponents = map(exponent, (0.7, 0.5, 0.25, 0, -0.25, -0.5))
    # Each half of the cycle fills a window of the lens, which is a sixth of the run.
    optimizers = [
        f"sgd:lr={SGD_LR:g}",
        "adam",
        *exponents,
        cycled(0.5, -0.25, length // 3, "square"),
    ]
    tasks: dict[str, dict[str, Any]] = {"shakespeare-char": {"size": scale.size}, "mnist-5k": {}}
    return {
        task: condensed(
            context.compare(
                task,
                optimizers,
                steps=length,
                seeds=scale.short_seeds,
                study=task,
                lens=True,
                options=options,
            ),
            curves=False,
            lens=("temporal",),
        )
        for task, options in tasks.items()
    }


PARTS = (
    Part("lead", "Exponents above Adam's on a character GPT", lead, ("pytorch_optimizer",)),
    Part("steps", "p = 0.7 over shorter and longer runs", steps),
    Part("images", "Images: error, cost, alignment", images),
    Part("ablation", "Our cycle's period, shape, range and scale", ablation),
    Part("layers", "p = 0.7 by kind of layer", layers),
    Part("mechanism", "p = 0.7 by part of d", mechanism),
    Part(
        "tuned",
        "Every optimizer tuned with the same budget",
        tuned,
        ("optuna", "pytorch_optimizer"),
    ),
    Part("authors", "The rule and the regime of NSF's authors", authors),
    Part("response", "Which frequencies each exponent favours", response),
)
