"""Where a classifier's decision boundary lies, and how early in training it lies there.

The NSF paper claims "early decision-boundary alignment, where accuracy improves even while loss
remains high". Its text is not at hand; here a boundary is aligned when the model already decides
as the trained one will.

Logits are (…, classes) and labels (…) int64: one example each, or one token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bandwise.lens.quantities._evaluating import evaluating
from bandwise.lens.quantities.quantity import Row
from bandwise.optim import _checks

LEVEL = 0.9  # of agreement, where decisions count as the final ones


def agreement(logits: Tensor, final: Tensor) -> float:
    """The share of examples for which both logits name the same class."""
    if logits.shape != final.shape:
        raise ValueError(
            f"logits must have the shape of final, {tuple(final.shape)}, got {tuple(logits.shape)}"
        )
    return agreeing(*(some.argmax(-1).flatten().tolist() for some in (logits, final)))


def agreeing(classes: Sequence[int], final: Sequence[int]) -> float:
    """``agreement`` of predicted classes."""
    return sum(a == b for a, b in zip(classes, final, strict=True)) / len(final)


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """How far each example is on the right side: z_y - max_{k≠y} z_k for logits z and label y.

    It is the log odds of the right class over the likeliest wrong one, in nats; negative where
    the model is wrong, 0 on the boundary. It grows with a model's confidence, not only with the
    distance to the boundary.

    Returns:
        (…), of the logits' type.
    """
    right = labels.unsqueeze(-1)
    wrong = logits.scatter(-1, right, -torch.inf).amax(-1)
    return logits.gather(-1, right).squeeze(-1) - wrong


def margin_figures(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """``mean_margin``, ``median_margin`` and ``low_margin``, the 10th percentile, of
    ``margins``, in nats. The quantiles interpolate linearly."""
    values = margins(logits.double(), labels).flatten().cpu().numpy()
    low, median = np.quantile(values, (0.1, 0.5)).tolist()
    return {"mean_margin": float(values.mean()), "median_margin": median, "low_margin": low}


def decision_figures(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """``accuracy``, ``loss``, the mean cross-entropy in nats, and the ``margin_figures``."""
    logits = logits.double()
    loss = nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())
    return {
        "accuracy": (logits.argmax(-1) == labels).double().mean().item(),
        "loss": loss.item(),
        **margin_figures(logits, labels),
    }


@dataclass(frozen=True)
class Alignment:
    """How a model came to decide as it does in the end.

    Attributes:
        rows: one for each look at it: ``step``, ``agreement`` with the final model, and
            the ``decision_figures``.
        step: the first step with an agreement of at least the level asked for; ``None`` if there
            is none. The agreement may fall below the level again later.
        loss_fall: the loss's fall up to that step, as a fraction of its fall from the first row
            to the final model. Alignment is early where it is small. ``None`` where ``step`` is,
            where the loss did not fall in all, and where one of the losses is not known.
    """

    rows: list[Row]
    step: int | None
    loss_fall: float | None


def alignment(
    history: Iterable[tuple[int, Tensor]], final: Tensor, labels: Tensor, level: float = LEVEL
) -> Alignment:
    """How a model came to decide as it does in the end, from its logits on the way.

    Args:
        history: (step, logits) in the order of the steps, on one fixed held-out set. The first
            entry is what the loss's fall counts from: an untrained model, best.
        final: logits of the trained model on the same set.
        labels: the right classes.
        level: the agreement that counts as aligned, in [0, 1].

    Raises:
        ValueError: the history is empty, or some logits have not the shape of ``final``.
    """
    _checks.number("level", level, low=0, high=1)
    rows: list[Row] = [
        {"step": step, "agreement": agreement(logits, final), **decision_figures(logits, labels)}
        for step, logits in history
    ]
    if not rows:
        raise ValueError("history must hold at least one (step, logits), got none")
    return aligned(rows, decision_figures(final, labels)["loss"], level)


def aligned(rows: list[Row], loss: float | None, level: float = LEVEL) -> Alignment:
    """``alignment`` from figures that were recorded on the way.

    Args:
        rows: with ``step``, ``agreement`` and ``loss``, in the order of the steps.
        loss: of the trained model.
        level: the agreement that counts as aligned.
    """
    at = next((row for row in rows if row["agreement"] >= level), None)
    if at is None:
        return Alignment(rows, step=None, loss_fall=None)
    first, then = rows[0]["loss"], at["loss"]
    fall = None
    if loss is not None and None not in (first, then) and loss < first:
        fall = (first - then) / (first - loss)
    return Alignment(rows, step=at["step"], loss_fall=fall)


class Grid(NamedTuple):
    """A classifier's logits on a grid.

    Attributes:
        x: the columns' first coordinates, (n,).
        y: the rows' second coordinates, (n,).
        logits: (n, n, classes); ``logits[i, j]`` belongs to the point (x[j], y[i]). A contour of
            their difference at 0 is the boundary, smooth where that of the classes has steps.
    """

    x: Tensor
    y: Tensor
    logits: Tensor

    @property
    def classes(self) -> Tensor:
        """The predicted classes, (n, n) int64."""
        return self.logits.argmax(-1)


def boundary_grid(
    model: nn.Module, low: tuple[float, float], high: tuple[float, float], n: int
) -> Grid:
    """Ask a classifier of points in the plane for its logits on a grid, in evaluation mode.

    Args:
        model: called with (points, 2) float32 on its device, gives (points, classes).
        low: the grid's smallest x and y; points on the grid.
        high: the grid's largest x and y; points on the grid.
        n: points along each side, at least 2.

    Returns:
        The grid, on the CPU.
    """
    _checks.whole("n", n, 2)
    x, y = (torch.linspace(a, b, n) for a, b in zip(low, high, strict=True))
    points = torch.cartesian_prod(y, x).flip(-1)  # x runs fastest
    with evaluating(model) as device:
        logits: Tensor = model(points.to(device)).cpu()
    return Grid(x, y, logits.view(n, n, -1))
