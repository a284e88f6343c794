"""Instruments draw known figures from known rows."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("plotly")

import plotly.graph_objects as go

import bandwise as bw
from bandwise.figures import Figure, lens_figures
from bandwise.figures.figure import line
from bandwise.figures.tables import lens_table
from bandwise.figures.words import MINUS
from bandwise.lens import Lens, Spatial, Temporal, Weights
from bandwise.lens.quantities.decisions import boundary_figures
from bandwise.lens.quantities.quantity import Row


def figure_of(runs: dict[str, Sequence[Sequence[Row]]], name: str) -> Figure:
    return next(figure for figure in lens_figures(runs) if figure.id == f"lens-{name}")


def traces(figure: Figure, kind: str) -> dict[str, go.Scatter]:
    return {trace.name: trace for trace in figure.plot.data if trace.meta == kind}


def words(figure: Figure) -> str:
    return figure.title.replace(MINUS, "-")


def temporal(step: int, steps: int = 100, gain: Sequence[float] = (1, 1, 1), **more: Any) -> Row:
    """A row of ``temporal`` with this gain."""
    frequency = [i / 2 / (len(gain) - 1) for i in range(len(gain))]
    row = {"step": step, "quantity": "temporal", "tensor": "all", "steps": steps}
    row |= {"frequency": frequency, "gain": list(gain), "response": list(gain)}
    row |= {"gain_low": gain[0], "gain_high": gain[-1]}
    row |= {"response_low": gain[0], "response_high": gain[-1]}
    row |= {"size_slope": None, "rate_slope": None, "across_rate": [], "across_gain": []}
    return row | more


def decisions(step: int, agreement: float, loss: float | None) -> Row:
    row = {"step": step, "quantity": "decisions", "tensor": "all"}
    return row | {"agreement": agreement, "accuracy": agreement, "loss": loss}


def recorded(
    folder: Path,
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    steps: int = 256,
    window: int = 64,
) -> Lens:
    """The rows of a lens on gradients of noise whose sizes span two powers of ten."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(16, 8, bias=False)
    sizes = torch.logspace(-1, 1, 128).view(8, 16)
    optimizer = make(list(model.parameters()))
    quantities = [Temporal(window, coordinates=128), Spatial(), Weights(every=1)]
    with Lens(model, optimizer, every=50, out=folder, quantities=quantities) as lens:
        for _ in range(steps):
            model.weight.grad = sizes * torch.randn(8, 16, generator=generator)
            optimizer.step()
    return lens


# Real logs


def test_sgd_draws_flat_and_momentum_falls_as_its_formula(tmp_path: Path) -> None:
    beta = 0.9
    runs = {
        name: [
            Lens.read(
                recorded(
                    tmp_path / name,
                    lambda params, m=momentum: torch.optim.SGD(params, lr=1e-3, momentum=m),
                    steps=1024,
                    window=512,
                ).out
            )
        ]
        for name, momentum in (("sgd", 0.0), ("momentum", beta))
    }
    gain = traces(figure_of(runs, "gain"), "mean")
    assert gain["sgd"].y == pytest.approx([0] * len(gain["sgd"].y), abs=1e-2)
    f = torch.tensor(gain["momentum"].x, dtype=torch.float64)
    theory = -20 * (1 - beta * torch.polar(torch.ones_like(f), -2 * math.pi * f)).abs().log10()
    assert f[0] == 0
    assert f[-1] == 0.5
    # Welch's windows smear the first frequencies.
    assert gain["momentum"].y[3:] == pytest.approx((theory - theory.mean())[3:].tolist(), abs=0.7)
    slopes = figure_of(runs, "size-slope")
    assert "neutral: sgd, momentum" in slopes.title
    assert traces(slopes, "mean")["sgd"].x == pytest.approx([0], abs=1e-3)


def test_a_cycle_of_p_shows_over_training(tmp_path: Path) -> None:
    cycle = bw.Cyclic(0.5, -0.5, period=128, shape="square")
    recorded(tmp_path, lambda params: bw.NSF(params, lr=1e-3, p=cycle, betas=(0, 0.9)))
    figure = figure_of({"NSF": [Lens.read(tmp_path)]}, "size-slope-steps")
    (mean,) = traces(figure, "mean").values()
    assert mean.name == "NSF"
    assert mean.x == (64, 128, 192, 256)
    assert [slope < 0 for slope in mean.y] == [True, False, True, False]
    assert min(map(abs, mean.y)) > 0.5


def test_every_default_quantity_is_drawn(tmp_path: Path) -> None:
    recorded(tmp_path, lambda params: bw.SMI(torch.optim.AdamW(params), 256))
    figures = lens_figures({"SMI": [Lens.read(tmp_path)]})
    drawn = [figure.id.removeprefix("lens-") for figure in figures]
    assert len(set(drawn)) == len(drawn)
    assert {"gain", "size-slope", "rate-slope", "across", "emphasis", "layers"} <= set(drawn)
    assert {"band-low", "mask-kept", "mask-overlap", "weights-kurtosis"} <= set(drawn)
    for figure in figures:
        assert figure.title
        assert figure.note
        assert isinstance(figure.plot, go.Figure)


# Known rows


def test_gain_is_in_decibels_against_its_mean() -> None:
    figure = figure_of({"a": [[temporal(100, gain=[10, 1, 1, 1])]]}, "gain")
    (mean,) = traces(figure, "mean").values()
    assert mean.x == pytest.approx([0, 1 / 6, 1 / 3, 1 / 2])
    assert mean.y == pytest.approx([15, -5, -5, -5])
    assert figure.title.endswith("+20.0 dB (a)")


def test_titles_compare_the_lowest_and_the_highest() -> None:
    def title(*low: float) -> str:
        runs = {name: [[temporal(9, gain=[g, 1, 1])]] for name, g in zip("abc", low, strict=False)}
        return words(figure_of(runs, "gain")).split(": ")[1]

    assert title(1, 0.1, 10) == "from -20.0 dB (b) to +20.0 dB (c)"
    assert title(10, 10.0001) == "+20.0 dB (all)"
    assert title(10) == "+20.0 dB (a)"


def test_windows_of_the_first_fifth_are_left_out_unless_there_are_no_others() -> None:
    rows = [temporal(step, gain=[10 if step == 100 else 1, 1, 1]) for step in (100, 200, 500)]
    (mean,) = traces(figure_of({"a": [rows]}, "gain"), "mean").values()
    assert mean.y == pytest.approx([0, 0, 0])
    (mean,) = traces(figure_of({"a": [rows[:1]]}, "gain"), "mean").values()
    assert mean.y[0] > 10


def test_seeds_become_a_mean_and_a_band() -> None:
    seeds = [[temporal(100, size_slope=s, size_slope_low=s, size_slope_high=s)] for s in (-1, -0.6)]
    figure = figure_of({"a": seeds}, "size-slope-steps")
    assert traces(figure, "mean")["a"].y == pytest.approx([-0.8])
    assert set(traces(figure, "band")["a"].y) == {-1, -0.6}


def test_slopes_say_who_favours_what() -> None:
    def run(slope: float) -> list[list[Row]]:
        ends = {"size_slope_low": slope - 0.1, "size_slope_high": slope + 0.2}
        return [[temporal(200, size_slope=slope, **ends)]]

    runs = {"nsf:p=0.7": run(-1.41), "sgd": run(0.02), "nsf:p=-0.5": run(0.75)}
    figure = figure_of(runs, "size-slope")
    assert words(figure) == (
        "Size slope: nsf:p=0.7 evens steps out most (-1.41); "
        "nsf:p=-0.5 favours large gradients most (+0.75); "
        "cannot be told from neutral: sgd (+0.02, interval -0.08 to +0.22)"
    )
    mean = traces(figure, "mean")["nsf:p=0.7"]
    assert mean.x == (-1.41,)
    assert mean.error_x.arrayminus == pytest.approx([0.1])
    assert mean.error_x.array == pytest.approx([0.2])
    references = {note.text: note.x for note in figure.plot.layout.annotations}
    assert references == {"SGD in theory": 0, "Adam in theory": -1}


Interval = tuple[float, float, float]


@pytest.mark.parametrize(
    ("slopes", "says"),
    [
        (
            {"AdamW": (-0.31, -0.68, 0.05)},
            "cannot be told from neutral: AdamW (-0.31, interval -0.68 to +0.05)",
        ),
        ({"AdamW": (-0.31, -0.51, -0.11)}, "AdamW favours slow gradients (-0.31)"),
        ({"SGD": (0.02, -0.05, 0.09)}, "neutral: SGD"),
        # Momentum alone can cause such a slope, so it is no effect of the optimizer's scaling.
        (
            {"a": (0.13, 0.01, 0.25)},
            "cannot be told from neutral: a (+0.13, interval +0.01 to +0.25)",
        ),
        (
            {"smi": (-0.8, -0.9, -0.7), "adamw": (-0.7, -0.8, -0.6), "sgd": (0, -0.01, 0.01)},
            "smi favours slow gradients (-0.80), and so does adamw; neutral: sgd",
        ),
        (
            {"smi": (-0.8, -0.9, -0.7), "adamw": (-0.6, -0.69, -0.5)},
            "smi favours slow gradients most (-0.80)",
        ),
        (
            {"a": (0.8, 0.7, 0.9), "b": (0.7, 0.6, 0.8), "c": (0.6, 0.5, 0.75)},
            "a favours fast gradients (+0.80), and so do b, c",
        ),
        (
            {"a": (-0.8, -0.9, -0.7), "b": (-0.4, -0.8, 0.1), "c": (0.1, -0.9, 1.1)},
            "a favours slow gradients (-0.80); cannot be told from neutral: b, c",
        ),
    ],
)
def test_titles_of_slopes_say_no_more_than_their_intervals(
    slopes: dict[str, Interval], says: str
) -> None:
    runs = {
        label: [[temporal(9, rate_slope=mean, rate_slope_low=low, rate_slope_high=high)]]
        for label, (mean, low, high) in slopes.items()
    }
    assert words(figure_of(runs, "rate-slope")) == f"Rate slope: {says}"


def test_a_single_point_is_no_course() -> None:
    def weights(*norms: float) -> list[list[Row]]:
        row = {"quantity": "weights", "tensor": "all"}
        return [[row | {"step": 1 + 49 * i, "spectral_norm": n} for i, n in enumerate(norms)]]

    def title(**norms: Sequence[float]) -> str:
        runs = {label: weights(*some) for label, some in norms.items()}
        return figure_of(runs, "weights-spectral-norm").title

    assert title(a=[0.782]) == "Spectral norm: 0.782 (a), at step 1 alone"
    assert title(a=[2], smi=[1.5]) == "Spectral norm: from 1.5 (smi) to 2 (a), at step 1 alone"
    assert title(a=[2], smi=[2]) == "Spectral norm: 2 (all), at step 1 alone"
    assert title(a=[0.782, 0.9]) == "Spectral norm: a goes from 0.782 to 0.9"
    assert title(a=[2, 2], smi=[1.5, 1]) == "Spectral norm: smi ends lowest (1), a highest (2)"


def test_across_is_step_over_rate() -> None:
    curves = {"across_rate": [0.1, 0.3, 0.5], "across_gain": [2.0, 1.0, 0.2]}
    other = {"across_rate": [0.2, 0.4, 0.5], "across_gain": [2.0, 1.0, 0.2]}
    figure = figure_of({"a": [[temporal(100, **curves)], [temporal(100, **other)]]}, "across")
    mean = traces(figure, "mean")["a"]
    assert mean.x == pytest.approx([0.15, 0.35, 0.5])
    assert mean.y == pytest.approx([20 * math.log10(2), 0, 20 * math.log10(0.2)])
    assert "-20.0 dB (a)" in words(figure)


def test_emphasis_is_low_over_high() -> None:
    rows = [temporal(100, gain=[10, 1, 1]), temporal(200, gain=[1, 1, 10])]
    mean = traces(figure_of({"a": [rows]}, "emphasis"), "mean")["a"]
    assert (mean.x, mean.y) == ((100, 200), pytest.approx([20, -20]))


def spatial(step: int, **figures_: Any) -> Row:
    return {"step": step, "quantity": "spatial", "tensor": "all", "low": 0.3, "white_low": 0.1} | {
        "mid": 0.3,
        "white_mid": 0.3,
        "high": 0.4,
        "white_high": 0.6,
        **figures_,
    }


def test_bands_are_multiples_of_white_noise() -> None:
    runs = {"a": [[spatial(1)]]}
    for band, multiple in (("low", 3), ("mid", 1), ("high", 2 / 3)):
        mean = traces(figure_of(runs, f"band-{band}"), "mean")["a"]
        assert mean.y == pytest.approx([multiple])


def test_the_mask_is_drawn_where_there_is_one() -> None:
    names = [figure.id for figure in lens_figures({"a": [[spatial(1)]]})]
    assert not [name for name in names if "mask" in name]
    rows = [spatial(1, kept=0.9, q=0.25, overlap=None), spatial(50, kept=0.8, q=0.25, overlap=0.7)]
    runs = {"a": [rows]}
    kept, overlap = figure_of(runs, "mask-kept"), figure_of(runs, "mask-overlap")
    assert traces(kept, "mean")["a"].y == (0.9, 0.8)
    assert traces(overlap, "mean")["a"].x == (50,)
    assert [shape.y0 for shape in kept.plot.layout.shapes] == [0.75]
    assert [shape.y0 for shape in overlap.plot.layout.shapes] == [0.6]


# Agreement at step 40, when the loss has gone from 2 to 1.8 of the way to 1.
EARLY = [
    decisions(0, 0.5, 2.0),
    decisions(20, 0.89, 1.9),
    decisions(40, 0.9, 1.8),
    decisions(60, 0.85, 1.5),
    decisions(80, 1.0, 1.0),
]
LATE = [decisions(0, 0.5, 2.0), decisions(40, 0.6, 1.2), decisions(80, 1.0, 1.0)]


def test_a_loss_that_did_not_fall_has_no_early_or_late() -> None:
    for end in (2.0, math.nan, None):
        rows = [decisions(0, 1.0, 1.0), decisions(9, 1.0, end)]
        assert "lens-alignment" not in {figure.id for figure in lens_figures({"a": [rows]})}


def test_alignment_is_the_first_crossing() -> None:
    figure = figure_of({"early": [EARLY], "late": [LATE]}, "alignment")
    assert figure.title == (
        "Aligned with its last decisions at 90%: "
        "early by step 40, when the loss had made 20% of its fall; "
        "late by step 80, when the loss had made 100% of its fall"
    )
    assert traces(figure, "mean")["early"].x == pytest.approx([0.2])
    agreement = figure_of({"early": [EARLY], "late": [LATE]}, "agreement")
    assert agreement.title == "Decisions are 90% the final ones: early by step 40; late by step 80"


def test_one_evaluation_has_nothing_to_agree_with() -> None:
    runs = {"a": [EARLY[-1:]], "b": [EARLY]}
    assert list(traces(figure_of(runs, "agreement"), "mean")) == ["b"]
    assert not {"lens-agreement", "lens-alignment"} & {f.id for f in lens_figures({"a": runs["a"]})}


def test_agreement_is_of_the_classes_that_a_log_holds() -> None:
    """A log holds the predicted classes. Agreement with the last ones is known only at the end."""
    row = {"quantity": "decisions", "tensor": "all", "accuracy": 0.5, "loss": 1.0}
    looks = {0: [1, 1, 1, 1], 20: [1, 0, 1, 1], 40: [1, 0, 0, 1]}
    rows = [row | {"step": step, "predicted": classes} for step, classes in looks.items()]
    mean = traces(figure_of({"a": [rows]}, "agreement"), "mean")["a"]
    assert (mean.x, mean.y) == ((0, 20, 40), (0.5, 0.75, 1.0))


def half_plane(a: float, b: float, c: float) -> nn.Linear:
    """A model whose class is 1 where ax + by > c."""
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0], [a, b]]))
        model.bias.copy_(torch.tensor([0.0, -c]))
    return model


def boundary(step: int, a: float, b: float, c: float) -> Row:
    figures = boundary_figures(half_plane(a, b, c), (-1, 0), (2, 5))
    return {"step": step, "quantity": "boundary", "tensor": "all", **figures}


def test_boundaries_lie_where_they_should() -> None:
    runs = {
        "x": [[boundary(0, 0, 1, 2.1), boundary(10, 1, 0, 0.8), boundary(20, 1, 0, 0.8)]],
        "no grid": [[]],
        "y": [[boundary(10, 0, 1, 2.1), boundary(20, 0, -1, -2.1)]],
    }
    figure = figure_of(runs, "boundary")
    assert words(figure) == "At step 10, from 0% (y) to 100% (x) of the plane is in its final class"
    contours = [trace for trace in figure.plot.data if trace.type == "contour"]
    assert len(contours) == 5
    above = [
        lambda x, y: y > 2.1,
        lambda x, y: x > 0.8,
        lambda x, y: x > 0.8,
        lambda x, y: y > 2.1,
        lambda x, y: y < 2.1,
    ]
    for contour, inside in zip(contours, above, strict=True):
        for i, row in enumerate(contour.z):
            for j, value in enumerate(row):
                x, y = contour.x0 + j * contour.dx, contour.y0 + i * contour.dy
                assert (value > 0) == inside(x, y)
    assert contours[0].line.color == line(0).colour
    assert contours[-1].line.color == line(2).colour
    columns = [note.text for note in figure.plot.layout.annotations]
    assert columns == ["step 0", "step 10", "step 20"]


def test_of_many_boundaries_a_few_are_drawn_the_first_and_last_among_them() -> None:
    figure = figure_of({"x": [[boundary(step, 1, 0, 0.5) for step in range(25)]]}, "boundary")
    columns = [note.text for note in figure.plot.layout.annotations]
    assert len(columns) == 6
    assert (columns[0], columns[-1]) == ("step 0", "step 24")
    assert "6 of 25 stored steps" in figure.note


def evaluation(step: int, **errors: float) -> Row:
    return {"step": step, "quantity": "evaluation", "tensor": "all", "val_loss": 1.0, **errors}


def test_function_space_says_what_was_learnt_first() -> None:
    low_first = [
        evaluation(0, val_error_k1=1.0, val_error_k8=1.0),
        evaluation(10, val_error_k1=0.5, val_error_k8=0.9),
        evaluation(20, val_error_k1=0.6, val_error_k8=0.4),
    ]
    high_first = [
        evaluation(0, val_error_k1=1.0, val_error_k8=1.0),
        evaluation(30, val_error_k1=0.9, val_error_k8=0.1),
        evaluation(40, val_error_k1=0.1, val_error_k8=0.1),
    ]
    never = [evaluation(0, val_error_k1=1.0, val_error_k8=1.0)]
    figure = figure_of({"a": [low_first], "b": [high_first], "c": [never]}, "function-space")
    mean = traces(figure, "mean")
    assert (mean["a"].x, mean["a"].y) == ((1, 8), (10, 20))
    assert (mean["b"].x, mean["b"].y) == ((1, 8), (40, 30))
    assert figure.title == (
        "Low frequencies of the function are learnt first by a; "
        "k = 8 is half learnt soonest by a (step 20)"
    )
    assert "c, k = 1 (1 of 1); c, k = 8 (1 of 1)" in figure.note


def test_activations_say_whether_the_threshold_matters() -> None:
    def run(here: float, there: float) -> list[list[Row]]:
        row = {"step": 9, "quantity": "activations", "tensor": "all"}
        return [[row | {"layer_norm_outputs": here, "layer_norm_outputs_at_0.2": there}]]

    firm = figure_of({"a": run(0.1, 0.2), "b": run(0.2, 0.3)}, "activations-layer-norm-outputs")
    assert firm.title.endswith("from 10.0% (a) to 20.0% (b), at every threshold")
    weak = figure_of({"a": run(0.1, 0.4), "b": run(0.2, 0.3)}, "activations-layer-norm-outputs")
    assert weak.title.endswith("but at other thresholds not")


def test_layers_are_rows_of_a_heat_map() -> None:
    rows = [temporal(100, gain=[10, 1, 1], tensor="first.weight")]
    rows += [temporal(100, gain=[1, 1, 1], tensor="second.weight")]
    figure = figure_of({"a": [rows], "b": [rows[:1]]}, "layers")
    first, second = figure.plot.data
    assert first.y == ("first.weight", "second.weight")
    assert first.z[0] == pytest.approx([40 / 3, -20 / 3, -20 / 3])
    assert first.z[1] == pytest.approx([0, 0, 0])
    assert list(second.z[1]) == [None, None, None]


# Unusual rows


def everything(label: str) -> list[Row]:
    """Rows for every figure; a tensor of the model has the label as its name."""
    slopes = {"size_slope": -1.0, "size_slope_low": -1.1, "size_slope_high": -0.9}
    rates = {"rate_slope": -0.5, "rate_slope_low": -0.6, "rate_slope_high": -0.4}
    curve = {"across_rate": [0.1, 0.5], "across_gain": [1.0, 2.0]}
    rows = [temporal(100, **curve, **slopes, **rates), temporal(100, tensor=label), *EARLY]
    rows += [spatial(1, kept=0.9, q=0.25, overlap=0.7), boundary(0, 1, 0, 0.5)]
    rows += [evaluation(10, val_error_k1=0.1, val_error_k2=0.4)]
    rows += [{"step": 1, "quantity": "activations", "tensor": "all", "a_sparse": 0.3}]
    rows += [{"step": 1, "quantity": "weights", "tensor": "all", "kurtosis": 3.0}]
    return rows


@pytest.mark.parametrize("odd", ["a word", None, True, {}, [], [1.0], ["a word", None], math.nan])
def test_a_figure_of_an_unexpected_kind_is_left_out(odd: Any) -> None:
    """Users may record anything, even under the names of the lens's own quantities."""
    rows = everything("weight")
    changed = {
        f"{row['quantity']} {place} {key}": [[*rows[:place], row | {key: odd}, *rows[place + 1 :]]]
        for place, row in enumerate(rows)
        for key in row.keys() - {"step", "quantity", "tensor"}
    }
    whole = [figure.id for figure in lens_figures({"all": [rows]})]
    assert [figure.id for figure in lens_figures({"all": [rows], **changed})] == whole
    lens_table(changed)
    alone = [{key: row[key] for key in ("step", "quantity", "tensor")} for row in rows]
    assert lens_figures({"a": [alone]}) == []


def test_nothing_to_draw_is_no_figure() -> None:
    assert lens_figures({}) == []
    assert lens_figures({"a": [], "b": [[]]}) == []
    undefined = temporal(100, gain=[None, None], response=[None, None])  # type: ignore[list-item]
    assert lens_figures({"a": [[undefined, undefined | {"tensor": "weight"}]]}) == []
    empty = {"step": 1, "quantity": "activations", "tensor": "all", "a_sparse": None}
    assert lens_figures({"a": [[empty]]}) == []
    assert (
        lens_figures({"a": [[{"step": 1, "quantity": "my own", "tensor": "all", "x": 1.0}]]}) == []
    )


def test_a_label_without_rows_keeps_its_colour_for_itself() -> None:
    runs = {"a": [[]], "b": [[temporal(100)]]}
    (mean,) = traces(figure_of(runs, "gain"), "mean").values()
    assert mean.line.color == line(1).colour


def test_no_label_becomes_markup() -> None:
    evil = "<script>alert(1)</script>"
    rows = everything(evil)
    drawn = lens_figures({evil: [rows], f"b {evil}": [rows]})
    assert len(drawn) > 18
    for figure in drawn:
        for text in re.findall(r'"(?:[^"\\]|\\.)*"', figure.plot.to_json()):
            shown = json.loads(text).replace("<br>", "").replace("<extra></extra>", "")
            assert "<" not in shown, figure.id


def test_a_run_must_be_a_list_of_rows() -> None:
    with pytest.raises(TypeError, match="got for 'a' something else"):
        lens_figures({"a": [temporal(100)]})  # type: ignore[list-item]


def test_without_plotly_the_error_names_the_extra() -> None:
    code = """
import sys
sys.modules["plotly"] = None
try:
    import bandwise.figures
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "bandwise.figures needs plotly: pip install 'bandwise[study]'\n"
