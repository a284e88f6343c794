"""Where the decision boundary of a classifier of points in the plane lies."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from bandwise.lens.quantities.quantity import evaluating
from bandwise.optim import _checks

Point: TypeAlias = tuple[float, float]

_SIDE = 33


class Grid(NamedTuple):
    """A classifier's logits on a grid.

    Attributes:
        x: the x of each column, (n,).
        y: the y of each row, (n,).
        logits: (n, n, classes); ``logits[i, j]`` belongs to the point (x[j], y[i]). The boundary
            between two classes is the contour at which their difference is 0.
    """

    x: Tensor
    y: Tensor
    logits: Tensor

    @property
    def classes(self) -> Tensor:
        """The predicted classes, (n, n) int64."""
        return self.logits.argmax(-1)


def boundary_grid(model: nn.Module, low: Point, high: Point, n: int) -> Grid:
    """A classifier's logits on a grid of n x n points, in evaluation mode.

    Args:
        model: takes (points, 2) float32 on its device to logits, (points, classes).
        low: (x, y) of the first point, at the lower left.
        high: (x, y) of the last point, at the upper right.
        n: points along each side, at least 2.

    Returns:
        The grid, on the CPU.
    """
    _checks.whole("n", n, 2)
    x, y = (torch.linspace(a, b, n, device="cpu") for a, b in zip(low, high, strict=True))
    points = torch.cartesian_prod(y, x).flip(-1)  # x runs fastest
    with evaluating(model) as device:
        logits: Tensor = model(points.to(device)).cpu()
    return Grid(x, y, logits.view(n, n, -1))


def boundary_figures(model: nn.Module, low: Point, high: Point) -> dict[str, Any]:
    """The grid of a classifier of two classes, as plain data.

    Returns:
        ``x`` and ``y``, the ends of the grid; ``n``, the points along each side; ``values``, the
        difference of the logits, z₁ - z₀, with three digits and x running fastest.

    Raises:
        ValueError: the model has not two classes.
    """
    logits = boundary_grid(model, low, high, _SIDE).logits
    if logits.shape[-1] != 2:
        raise ValueError(f"plane must have a model of 2 classes, got {logits.shape[-1]}")
    leaning = (logits[..., 1].double() - logits[..., 0]).flatten().tolist()
    x, y = zip(low, high, strict=True)
    return {
        "x": list(x),
        "y": list(y),
        "n": _SIDE,
        "values": [float(f"{value:.3g}") for value in leaning],
    }
