"""Decisions, margins and boundaries, compared with results by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bandwise import tasks
from bandwise.lens.quantities.boundary import boundary_figures, boundary_grid
from bandwise.lens.quantities.decisions import (
    agreement,
    aligned,
    alignment,
    decision_figures,
    margin_figures,
    margins,
    probe_figures,
)

# --- agreement and margins ----------------------------------------------------------------------


def test_agreement_by_hand() -> None:
    a = torch.tensor([[2.0, 1, 0], [0, 3, 1], [0, 0, 9], [1, 0, 0]])
    b = torch.tensor([[0.2, 0.1, 0], [5, 3, 1], [0, 0, 1], [1, 2, 0]])
    assert agreement(a, b) == 0.5
    assert agreement(a, 7 * a) == 1


def test_margins_by_hand() -> None:
    logits = torch.tensor([[2.0, 1, 0], [0, 3, 1], [-5, -7, -5]])
    assert margins(logits, torch.tensor([0, 2, 0])).tolist() == [1, -2, 0]
    assert margins(logits, torch.tensor([1, 1, 1])).tolist() == [-1, 2, -2]


def test_a_margin_is_a_log_odds() -> None:
    logits = torch.randn(6, 2, dtype=torch.float64)
    p = logits.softmax(-1)[:, 1]
    torch.testing.assert_close(margins(logits, torch.ones(6, dtype=torch.int64)), torch.logit(p))


def test_margins_leave_the_logits_alone() -> None:
    logits = torch.randn(5, 3)
    before = logits.clone()
    margins(logits, torch.zeros(5, dtype=torch.int64))
    assert torch.equal(logits, before)


def test_margin_figures_by_hand() -> None:
    wanted = torch.arange(11.0).square()  # 0, 1, 4, … 100
    logits = torch.stack([wanted, torch.zeros(11)], 1)
    figures = margin_figures(logits, torch.zeros(11, dtype=torch.int64))
    assert figures == pytest.approx({"mean_margin": 35, "median_margin": 25, "low_margin": 1})


# --- alignment ----------------------------------------------------------------------------------

LABELS = torch.tensor([0, 1, 1, 0, 1, 0, 1, 1, 0, 1])


def decided(margin: float, wrong: int = 0) -> Tensor:
    """Logits with this margin on every example, and its negative on the first ``wrong``."""
    sign = torch.where(LABELS == 1, 1.0, -1.0)
    sign[:wrong] *= -1
    return torch.stack([torch.zeros(10), sign * margin], 1)


def cross_entropy(margin: float) -> float:
    return math.log1p(math.exp(-margin))


def test_early_alignment_is_high_agreement_at_high_loss() -> None:
    history = [
        (0, decided(1.0, wrong=6)),
        (10, decided(0.1, wrong=2)),
        (20, decided(0.1, wrong=1)),
        (30, decided(2.0)),
    ]
    found = alignment(history, decided(5.0), LABELS)
    assert [row["step"] for row in found.rows] == [0, 10, 20, 30]
    assert [row["agreement"] for row in found.rows] == pytest.approx([0.4, 0.8, 0.9, 1])
    assert [row["accuracy"] for row in found.rows] == pytest.approx([0.4, 0.8, 0.9, 1])
    losses = [
        0.6 * cross_entropy(-1) + 0.4 * cross_entropy(1),
        0.2 * cross_entropy(-0.1) + 0.8 * cross_entropy(0.1),
        0.1 * cross_entropy(-0.1) + 0.9 * cross_entropy(0.1),
        cross_entropy(2),
    ]
    assert [row["loss"] for row in found.rows] == pytest.approx(losses)
    means = [row["mean_margin"] for row in found.rows]
    assert means == pytest.approx([-0.2, 0.06, 0.08, 2])
    assert found.step == 20
    fall = (losses[0] - losses[2]) / (losses[0] - cross_entropy(5))
    assert found.loss_fall == pytest.approx(fall)


def test_agreement_is_with_the_final_model_not_with_the_labels() -> None:
    final = decided(5.0, wrong=4)
    (row,) = alignment([(7, decided(1.0, wrong=4))], final, LABELS).rows
    assert row["agreement"] == 1
    assert row["accuracy"] == pytest.approx(0.6)


def test_the_level_decides_when() -> None:
    history = [(step, decided(1.0, wrong=10 - step)) for step in range(11)]
    for level in (0.0, 0.35, 0.9, 1.0):
        assert alignment(history, decided(2.0), LABELS, level).step == math.ceil(10 * level)


def test_never_aligned() -> None:
    found = alignment([(1, decided(1.0, wrong=5))], decided(1.0), LABELS)
    assert found.step is None
    assert found.loss_fall is None


def test_a_loss_that_did_not_fall_has_no_fraction() -> None:
    found = alignment([(1, decided(1.0)), (2, decided(3.0))], decided(0.5), LABELS)
    assert found.step == 1
    assert found.loss_fall is None


def test_recorded_figures_say_the_same() -> None:
    history = [(step, decided(1.0, wrong=10 - step)) for step in range(11)]
    found = alignment(history, decided(2.0), LABELS)
    assert found.loss_fall is not None
    assert aligned(found.rows, decision_figures(decided(2.0), LABELS)["loss"]) == found
    assert found.step == 9
    # A model with inf or NaN is recorded as None.
    lost = [*found.rows[:9], {**found.rows[9], "loss": None}]
    assert aligned(lost, cross_entropy(2)).loss_fall is None
    assert aligned(found.rows, None).loss_fall is None
    assert aligned([], None).step is None


def test_tokens_are_examples() -> None:
    logits, final, labels = torch.randn(4, 6, 5), torch.randn(4, 6, 5), torch.randint(5, (4, 6))
    per_token = alignment([(1, logits)], final, labels)
    flat = alignment([(1, logits.flatten(0, 1))], final.flatten(0, 1), labels.flatten())
    assert per_token == flat


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match=r"history must hold at least one .* got none"):
        alignment([], decided(1.0), LABELS)
    with pytest.raises(ValueError, match=r"shape of final, \(10, 2\), got \(9, 2\)"):
        alignment([(1, decided(1.0)[:9])], decided(1.0), LABELS)
    with pytest.raises(ValueError, match=r"level must be at most 1, got 90"):
        alignment([(1, decided(1.0))], decided(1.0), LABELS, level=90)
    with pytest.raises(ValueError, match=r"n must be at least 2, got 1"):
        boundary_grid(nn.Linear(2, 2), (0, 0), (1, 1), 1)


# --- the boundary on a grid ---------------------------------------------------------------------


def half_plane(a: float, b: float, c: float) -> nn.Linear:
    """A model whose class is 1 where ax + by > c."""
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0], [a, b]]))
        model.bias.copy_(torch.tensor([0.0, -c]))
    return model


def test_a_linear_boundary_lies_where_it_should() -> None:
    grid = boundary_grid(half_plane(2, 1, 1.1), low=(-1, 0), high=(1, 3), n=7)
    assert grid.x.tolist() == pytest.approx([-1 + i / 3 for i in range(7)], abs=1e-6)
    assert grid.y.tolist() == pytest.approx([i / 2 for i in range(7)])
    assert grid.logits.shape == (7, 7, 2)
    for i, y in enumerate(grid.y.tolist()):
        for j, x in enumerate(grid.x.tolist()):
            assert grid.classes[i, j] == (2 * x + y > 1.1)
            assert grid.logits[i, j, 1].item() == pytest.approx(2 * x + y - 1.1, abs=1e-6)


def test_the_grid_is_seen_in_evaluation_mode_and_modes_return() -> None:
    model = nn.Sequential(half_plane(1, 0, 0.1), nn.Dropout(0.99))
    grid = boundary_grid(model, (-1, -1), (1, 1), 20)
    assert torch.equal(grid.classes, (grid.x > 0.1).long().expand(20, 20))
    assert model.training
    assert model[1].training
    assert not grid.logits.requires_grad


def test_two_moons_are_told_apart() -> None:
    task = tasks.load("two-moons")
    model = task.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(1, 201):
        optimizer.zero_grad()
        task.loss(model, task.batch(0, step)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    grid = boundary_grid(model, (-1.5, -1.0), (2.5, 1.5), 41)

    def told(x: float, y: float) -> int:
        return int(grid.classes[(grid.y - y).abs().argmin(), (grid.x - x).abs().argmin()])

    # The tops and ends of the two half circles. No straight line separates them.
    assert [told(*point) for point in ((-1, 0), (0, 1), (1, 0.2))] == [0, 0, 0]
    assert [told(*point) for point in ((0, 0.2), (1, -0.5), (2, 0.5))] == [1, 1, 1]


# --- a model on its inputs ----------------------------------------------------------------------


def leaning(weights: list[float]) -> nn.Module:
    """A model with the logits 0 and x · weights."""
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.tensor([[0.0, 0.0], weights])
    return model


def test_decisions_are_those_of_the_model_on_the_probe() -> None:
    points = torch.tensor([[2.0, 9.0], [-1.0, 9.0], [-3.0, 9.0], [1.0, 9.0]])
    figures = probe_figures(leaning([1.0, 0.0]), points, torch.tensor([1, 0, 1, 1]))
    assert figures["predicted"] == [1, 0, 0, 1]
    assert figures["accuracy"] == 0.75
    assert figures["loss"] == pytest.approx(
        (2 * math.log1p(math.exp(-1)) + math.log1p(math.exp(-2)) + math.log1p(math.exp(3))) / 4
    )
    # Margins 2, 1, -3, 1.
    assert figures["mean_margin"] == pytest.approx(0.25)
    assert figures["median_margin"] == pytest.approx(1)
    assert figures["low_margin"] == pytest.approx(-3 + 0.3 * 4)


def test_the_boundary_is_a_grid_with_y_outer() -> None:
    figures = boundary_figures(leaning([1.0, 100.0]), (0.0, 10.0), (32.0, 42.0))
    assert figures["x"] == [0, 32]
    assert figures["y"] == [10, 42]
    assert figures["n"] == 33
    right = [float(f"{x + 100 * y:.3g}") for y in range(10, 43) for x in range(33)]
    assert figures["values"] == right


@pytest.mark.parametrize(
    ("inputs", "labels", "says"),
    [
        (torch.zeros(513, 2), torch.zeros(513).long(), "1 to 512 labels, got 513"),
        (torch.zeros(0, 2), torch.zeros(0).long(), "1 to 512 labels, got 0"),
        (torch.zeros(4, 2), torch.zeros(4, 1).long(), r"\(4, 1\).* gives \(4, 2\)"),
    ],
)
def test_a_probe_that_does_not_fit_is_refused(inputs: Tensor, labels: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        probe_figures(leaning([1.0, 0.0]), inputs, labels)


def test_a_plane_needs_two_classes() -> None:
    with pytest.raises(ValueError, match="must have a model of 2 classes, got 3"):
        boundary_figures(nn.Linear(2, 3), (0.0, 0.0), (1.0, 1.0))
