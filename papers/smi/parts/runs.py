"""The paper's Runs 0 to 5 (section 4.4): Tables 1 to 4 and 7 to 9, Figures 2 to 4."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from bandwise import tasks
from bandwise.lens.quantities.weights import model_figures
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


def _run(context: Context) -> dict[str, Any]:
    results = study(context)
    data = condensed(results)
    for run, kept in zip(results.runs, data["runs"], strict=True):
        # The lens neither measures the last step nor the variance over layers.
        figures = {} if run.diverged else model_figures(trained(context, run))
        kept["weights"] = rounded(figures)
    return {"study": data, "thresholds": SCALES[context.scale].thresholds}


PART = Part("runs", "Runs 0 to 5", _run)
