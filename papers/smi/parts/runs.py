"""The paper's Runs 0 to 5 (section 4.4): Tables 1 to 4 and 7 to 9, Figures 2 to 4."""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any

from torch import nn

from bandwise import tasks
from bandwise.lens.quantities.weights import weight_figures
from bandwise.study import Results
from bandwise.study.results import Run
from bandwise.study.run_files import CHECKPOINT, load_checkpoint
from papers.paper import Context, Part
from papers.smi.scales import SCALES
from papers.stored import condensed, rounded

# The names are the paper's. Its "magnitude threshold" is the retained part, 1 - q (section 5.6). It
# filters tensors of every shape.
RUNS = {
    "Baseline (AdamW)": "adamw",
    "Linear alpha (0.1 → 0.9)": "smi-adamw:alpha=linear(0.1,0.9),beta=0.9,q=0.5,min_ndim=1",
    "Linear alpha (0.1 → 0.5)": "smi-adamw:alpha=linear(0.1,0.5),beta=0.9,q=0.5,min_ndim=1",
    "Higher EMA (0.99)": "smi-adamw:alpha=linear(0.1,0.5),beta=0.99,q=0.5,min_ndim=1",
    "Top 75% Freq": "smi-adamw:alpha=linear(0.1,0.5),beta=0.99,q=0.25,min_ndim=1",
    "Cosine alpha": "smi-adamw:alpha=cosine(0.1,0.5),beta=0.99,q=0.25,min_ndim=1",
}
ADAMW, AGGRESSIVE, CONSERVATIVE, HIGHER_EMA, TOP_75, COSINE = RUNS.values()
TASK = "shakespeare-char"


def study(context: Context) -> Results:
    """The six runs. A trained run is not trained again."""
    scale = SCALES[context.scale]
    return context.compare(
        TASK,
        list(RUNS.values()),
        steps=scale.steps,
        seeds=scale.seeds,
        lens=True,
        options=scale.task_options,
    )


def beside(context: Context) -> Context:
    """The context of the part ``runs``, from the context of another part."""
    return replace(context, folder=context.folder.with_name(f"smi-runs-{context.scale}"))


def trained(context: Context, run: Run) -> nn.Module:
    """The trained model of a run of ``study``."""
    path = context.folder / run.folder / CHECKPOINT
    model = tasks.load(TASK, SCALES[context.scale].task_options).model().to(context.device)
    model.load_state_dict(load_checkpoint(path, context.device)["model"])
    return model.eval()


def model_figures(model: nn.Module) -> dict[str, float]:
    """The rows of Tables 2 and 4 for a model, from the ``weight_figures`` of its layers.

    A layer is a parameter of two or more dimensions. A shared parameter is one layer. Each layer
    counts the same, whatever its size.

    - ``average_spectral_norm`` and ``spectral_norm_variance``: the mean over layers, and the mean
      squared distance from it.
    - ``condition_number``, ``effective_rank_ratio``, ``parameter_magnitude_variance``,
      ``kurtosis``, ``effective_parameter_ratio``: means over layers.
    - ``median_condition_number``: one nearly singular layer can decide the mean; it cannot decide
      the median.

    Raises:
        ValueError: the model has no layer, or one that is not finite.
    """
    layers = []
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            try:
                layers.append(weight_figures(parameter))
            except ValueError as error:
                raise ValueError(f"model's parameter {name}: {error}") from error
    if not layers:
        raise ValueError("model must have a parameter of two or more dimensions, got none")
    of = {figure: [layer[figure] for layer in layers] for figure in layers[0]}
    return {
        "average_spectral_norm": statistics.fmean(of["spectral_norm"]),
        "spectral_norm_variance": statistics.pvariance(of["spectral_norm"]),
        "condition_number": statistics.fmean(of["condition_number"]),
        "median_condition_number": statistics.median(of["condition_number"]),
        "effective_rank_ratio": statistics.fmean(of["effective_rank_ratio"]),
        "parameter_magnitude_variance": statistics.fmean(of["magnitude_variance"]),
        "kurtosis": statistics.fmean(of["kurtosis"]),
        "effective_parameter_ratio": statistics.fmean(of["effective_parameter_ratio"]),
    }


def _run(context: Context) -> dict[str, Any]:
    results = study(context)
    data = condensed(results)
    for run, kept in zip(results.runs, data["runs"], strict=True):
        # The lens neither measures the last step nor the variance over layers.
        figures = {} if run.diverged else model_figures(trained(context, run))
        kept["weights"] = rounded(figures)
    return {"study": data, "thresholds": SCALES[context.scale].thresholds}


PART = Part("runs", "Runs 0 to 5", _run)
