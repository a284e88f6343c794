"""Decisions, margins and boundaries, compared with results by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bandwise import tasks
from bandwise.lens.quantities.decisions import (
    aligned,
    boundary_figures,
    decision_figures,
    margins,
    probe_figures,
    with_agreement,
)
from bandwise.lens.quantities.quantity import Row

# --- margins -------------------------------------------------------------------------------------


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
    figures = decision_figures(logits, torch.zeros(11, dtype=torch.int64))
    right = {"mean_margin": 35, "median_margin": 25, "low_margin": 1}
    assert {name: figures[name] for name in right} == pytest.approx(right)


# --- alignment ----------------------------------------------------------------------------------

LABELS = torch.tensor([0, 1, 1, 0, 1, 0, 1, 1, 0, 1])


def decided(margin: float, wrong: int = 0) -> Tensor:
    """Logits with this margin on every example, and its negative on the first ``wrong``."""
    sign = torch.where(LABELS == 1, 1.0, -1.0)
    sign[:wrong] *= -1
    return torch.stack([torch.zeros(10), sign * margin], 1)


def cross_entropy(margin: float) -> float:
    return math.log1p(math.exp(-margin))


def rows_of(history: list[tuple[int, Tensor]], labels: Tensor = LABELS) -> list[Row]:
    """What figures are drawn from, for logits during training. The last are the trained model's."""
    rows = []
    for step, logits in history:
        predicted = logits.argmax(-1).flatten().tolist()
        figures = {**decision_figures(logits, labels), "predicted": predicted}
        rows.append({"step": step, "quantity": "decisions", **figures})
    return with_agreement(rows)


def test_early_alignment_is_high_agreement_at_high_loss() -> None:
    rows = rows_of(
        [
            (0, decided(1.0, wrong=6)),
            (10, decided(0.1, wrong=2)),
            (20, decided(0.1, wrong=1)),
            (30, decided(2.0)),
            (40, decided(5.0)),
        ]
    )
    assert [row["agreement"] for row in rows] == pytest.approx([0.4, 0.8, 0.9, 1, 1])
    assert [row["accuracy"] for row in rows] == pytest.approx([0.4, 0.8, 0.9, 1, 1])
    losses = [
        0.6 * cross_entropy(-1) + 0.4 * cross_entropy(1),
        0.2 * cross_entropy(-0.1) + 0.8 * cross_entropy(0.1),
        0.1 * cross_entropy(-0.1) + 0.9 * cross_entropy(0.1),
        cross_entropy(2),
        cross_entropy(5),
    ]
    assert [row["loss"] for row in rows] == pytest.approx(losses)
    means = [row["mean_margin"] for row in rows]
    assert means == pytest.approx([-0.2, 0.06, 0.08, 2, 5])
    found = aligned(rows)
    assert found.step == 20
    fall = (losses[0] - losses[2]) / (losses[0] - losses[4])
    assert found.loss_fall == pytest.approx(fall)


def test_agreement_is_with_the_final_model_not_with_the_labels() -> None:
    first, _ = rows_of([(7, decided(1.0, wrong=4)), (8, decided(5.0, wrong=4))])
    assert first["agreement"] == 1
    assert first["accuracy"] == pytest.approx(0.6)


def test_nine_in_ten_are_aligned() -> None:
    history = [(step, decided(1.0, wrong=10 - step)) for step in range(11)]
    assert aligned(rows_of(history)).step == 9


def test_never_aligned() -> None:
    lost: list[Row] = [{"step": 1, "agreement": 0.5, "loss": 1.0}]
    assert aligned(lost) == aligned([]) == (None, None)


def test_a_loss_that_did_not_fall_has_no_fraction() -> None:
    found = aligned(rows_of([(1, decided(1.0)), (2, decided(3.0)), (3, decided(0.5))]))
    assert found == (1, None)


@pytest.mark.parametrize("unknown", [0, 9, 10])
def test_a_loss_that_is_not_known_has_no_fraction(unknown: int) -> None:
    """What was recorded of a model that is not finite is None."""
    rows = rows_of([(step, decided(1.0 + step, wrong=10 - step)) for step in range(11)])
    assert aligned(rows).loss_fall is not None
    rows[unknown]["loss"] = None
    assert aligned(rows) == (9, None)


def test_tokens_are_examples() -> None:
    logits, final, labels = torch.randn(4, 6, 5), torch.randn(4, 6, 5), torch.randint(5, (4, 6))
    per_token = rows_of([(1, logits), (2, final)], labels)
    flat = [(1, logits.flatten(0, 1)), (2, final.flatten(0, 1))]
    assert per_token == rows_of(flat, labels.flatten())


# --- the boundary on a grid ---------------------------------------------------------------------


def half_plane(a: float, b: float, c: float) -> nn.Linear:
    """A model whose class is 1 where ax + by > c."""
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0], [a, b]]))
        model.bias.copy_(torch.tensor([0.0, -c]))
    return model


def seen(
    model: nn.Module, low: tuple[float, float], high: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """The x of the columns, the y of the rows, and how far each point leans to class 1."""
    figures = boundary_figures(model, low, high)
    n = figures["n"]
    x, y = (torch.linspace(*figures[axis], n) for axis in ("x", "y"))
    return x, y, torch.tensor(figures["values"]).view(n, n)


def test_a_linear_boundary_lies_where_it_should() -> None:
    x, y, leaning = seen(half_plane(2, 1, 1.1), low=(-1, 0), high=(1, 3))
    right = 2 * x + y[:, None] - 1.1
    torch.testing.assert_close(leaning, right, rtol=5e-3, atol=1e-5)
    assert torch.equal(leaning > 0, right > 0)


def test_the_grid_is_seen_in_evaluation_mode_and_modes_return() -> None:
    model = nn.Sequential(half_plane(1, 0, 0.1), nn.Dropout(0.99))
    x, _, leaning = seen(model, (-1, -1), (1, 1))
    assert torch.equal(leaning > 0, (x > 0.1).expand_as(leaning))
    assert model.training
    assert model[1].training


def test_two_moons_are_told_apart() -> None:
    task = tasks.load("two-moons")
    model = task.model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(1, 201):
        optimizer.zero_grad()
        task.loss(model, task.batch(0, step)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    xs, ys, leaning = seen(model, (-1.5, -1.0), (2.5, 1.5))

    def told(x: float, y: float) -> int:
        return int(leaning[(ys - y).abs().argmin(), (xs - x).abs().argmin()] > 0)

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
