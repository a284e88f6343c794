"""The SMI paper's Figures 2 to 5, and its law of cost beside our measurements."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from torch import Tensor

from bandwise.figures.curves import Curve, draw, finite
from bandwise.figures.figure import Figure, blank, line
from bandwise.optim import schedules
from bandwise.study import spec
from papers.paper import Data
from papers.smi.measures import added, law
from papers.smi.parts.runs import ADAMW, AGGRESSIVE, CONSERVATIVE, COSINE, RUNS
from papers.stored import Study, final

_LABELS = {text: label for label, text in RUNS.items()}
_INDEX = {text: index for index, text in enumerate(RUNS.values())}


def figures(parts: Mapping[str, Data]) -> list[Figure]:
    """All figures whose data the stored parts have."""
    drawn: list[Figure] = []
    if "runs" in parts:
        study = Study(parts["runs"]["study"])
        if "inference" in parts:
            drawn.append(_figure_2(study, parts["inference"]))
        drawn += [_figure_3(study, "training", "train_loss"), _figure_3(study, "evals", "val_loss")]
        drawn += [_figure_4(study.data["steps"]), _figure_5()]
    if "overhead" in parts:
        drawn.append(_overhead(parts["overhead"]))
    return drawn


def _figure_2(study: Study, inference: Data) -> Figure:
    plot = blank(height=420, labels=len(RUNS))
    for text, index in _INDEX.items():
        plot.add_scatter(
            x=inference["tokens_per_second"][text],
            y=study.sample(text, final("val_loss")).values,
            mode="markers",
            name=_LABELS[text],
            legendgroup=str(index),
            marker={"color": line(index).colour, "size": 11, "symbol": index},
            hovertemplate="%{x:.4g} tokens/s, loss %{y:.4g}",
        )
    plot.update_xaxes(title_text="Inference, tokens per second")
    plot.update_yaxes(title_text="Validation loss at the end")
    plot.update_layout(hovermode="closest")
    return Figure(
        "figure-2",
        "Figure 2: validation loss against inference speed",
        "A mark is a seed. All models have one shape, so they run the same operations.",
        plot,
    )


def _figure_3(study: Study, rows: str, key: str) -> Figure:
    words = "training" if rows == "training" else "validation"
    base = [dict(zip(r[rows]["step"], r[rows][key], strict=True)) for r in study.runs(ADAMW)]
    plot = blank(height=360, labels=len(RUNS))
    plot.add_hline(y=0, line={"color": line(0).colour, "width": 3}, layer="below")
    for text, index in list(_INDEX.items())[1:]:
        seeds = [
            finite(
                (step, value - reference[step])
                for step, value in zip(run[rows]["step"], run[rows][key], strict=True)
                if step in reference
            )
            for run, reference in zip(study.runs(text), base, strict=True)
        ]
        curve = Curve.across(index, _LABELS[text], seeds)
        if curve:
            draw(plot, curve, markers=rows == "evals")
    plot.update_xaxes(title_text="step")
    plot.update_yaxes(title_text=f"{words.capitalize()} loss less AdamW's")
    return Figure(
        f"figure-3-{rows}",
        f"Figure 3: {words} loss, difference from the baseline",
        "Means of the differences by seed; bands go from the lowest seed to the highest.",
        plot,
    )


def _figure_4(steps: int) -> Figure:
    plot = blank(height=300, labels=3)
    for text in (AGGRESSIVE, CONSERVATIVE, COSINE):
        alpha, style = spec.parse(text).options["alpha"], line(_INDEX[text])
        x = [round(i * steps / 50) for i in range(51)]
        plot.add_scatter(
            x=x,
            y=[schedules.value_at(alpha, step, steps) for step in x],
            mode="lines",
            name=_LABELS[text],
            legendgroup=str(_INDEX[text]),
            line={"color": style.colour, "dash": style.dash, "width": style.width},
        )
    plot.update_xaxes(title_text="step")
    plot.update_yaxes(title_text="alpha", rangemode="tozero")
    return Figure("figure-4", "Figure 4: schedules of alpha", "As the runs used them.", plot)


def _figure_5() -> Figure:
    """Filter a synthetic gradient of two waves and noise. The paper's is synthetic too."""
    gradient = _synthetic()
    spectrum = torch.fft.fft2(gradient)
    panels = {
        "gradient": gradient,
        "its spectrum, log magnitude": torch.fft.fftshift(spectrum.abs().log1p()),
    }
    for kept in (50, 75):
        mask = spectrum.abs() >= torch.quantile(spectrum.abs(), 1 - kept / 100)
        panels[f"mask, {kept}% retained"] = torch.fft.fftshift(mask.double())
        panels[f"filtered, {kept}% retained"] = torch.fft.ifft2(spectrum * mask).real
    # Titles are given row by row, panels column by column. The first column is not filtered.
    titles = [*list(panels)[::2], *list(panels)[1::2]]
    plot = make_subplots(2, 3, subplot_titles=titles, vertical_spacing=0.12)
    for place, (name, values) in enumerate(panels.items()):
        plot.add_heatmap(
            z=[[round(x, 3) for x in row] for row in values.tolist()],
            colorscale="Viridis",
            showscale=False,
            hovertemplate="%{z}<extra></extra>",
            name=name,
            row=place % 2 + 1,
            col=place // 2 + 1,
        )
    shared = blank(height=560, labels=0).layout
    plot.update_layout(
        height=560,
        font=shared.font,
        paper_bgcolor=shared.paper_bgcolor,
        plot_bgcolor=shared.plot_bgcolor,
        margin={"l": 8, "r": 8, "t": 32, "b": 8},
    )
    plot.update_xaxes(visible=False)
    plot.update_yaxes(visible=False)
    return Figure(
        "figure-5",
        "Figure 5: what is filtered at 50% and 75% retention",
        "A synthetic gradient of two waves and noise. At 50% the filter removes more of the noise "
        "than at 75%, and nothing of the waves.",
        plot,
    )


def _synthetic(side: int = 48) -> Tensor:
    x = torch.arange(side, dtype=torch.float64) * (2 * math.pi / side)
    waves = torch.sin(2 * x)[:, None] + torch.cos(3 * x)[None, :]
    noise = torch.randn(side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return waves + 0.5 * noise


def _overhead(data: Data) -> Figure:
    counts = [size["parameters"] for size in data["sizes"]]
    gamma = law(data).gamma
    plot = blank(height=360, labels=3)
    plot.add_scatter(
        x=counts,
        y=[statistics.median(added(size)) for size in data["sizes"]],
        mode="markers",
        name="measured",
        marker={"color": line(1).colour, "size": 11},
    )
    _law_line(plot, "(18) with the gamma that fits, within the sizes measured", counts, gamma, 1)
    beyond = [counts[-1], 1e8, 1e9, 1e10, 1e11]
    _law_line(plot, "the same, projected: not measured", beyond, gamma, 2)
    plot.update_xaxes(title_text="parameters", type="log")
    plot.update_yaxes(title_text="Time added to a training step, %")
    return Figure(
        "overhead",
        "Table 6 as a figure: the time that SMI adds",
        "Points are medians over rounds. Everything beyond them is extrapolation.",
        plot,
    )


def _law_line(
    plot: go.Figure, name: str, counts: Sequence[float], gamma: float, style: int
) -> None:
    plot.add_scatter(
        x=list(counts),
        y=[100 * gamma * math.log(count) for count in counts],
        mode="lines",
        name=name,
        line={"color": line(style).colour, "dash": line(style).dash, "width": 2},
    )
