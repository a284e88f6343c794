"""What a classifier decides, and how early in training it decides as it does in the end.

The NSF paper claims "early decision-boundary alignment, where accuracy improves even while loss
remains high". Its text is not at hand. Here a model is aligned when it already decides as the
trained model does.

Logits are (…, classes) and labels (…) int64: one for each example, or for each token.
"""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from bandwise.lens.quantities.quantity import Row, evaluating

Point: TypeAlias = tuple[float, float]

# The agreement at which decisions count as the final ones.
LEVEL = 0.9
# Every look stores as many classes.
_MOST_LABELS = 512
# Points along each side of a plane.
_SIDE = 33


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """The margin of each example: z_y - max_{k≠y} z_k for logits z and label y, in nats.

    It is the log odds of the right class over the likeliest wrong one: negative where the model is
    wrong, 0 on the boundary.
    """
    right = labels.unsqueeze(-1)
    wrong = logits.scatter(-1, right, -torch.inf).amax(-1)
    return logits.gather(-1, right).squeeze(-1) - wrong


def decision_figures(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """How a classifier decides.

    Returns:
        ``accuracy``; ``loss``, the mean cross-entropy in nats; and of the ``margins``
        ``mean_margin``, ``median_margin`` and ``low_margin``, the 10th percentile. The quantiles
        interpolate linearly.
    """
    logits = logits.double()
    margin = margins(logits, labels).flatten()
    low, median = margin.quantile(margin.new_tensor([0.1, 0.5])).tolist()
    return {
        "accuracy": (logits.argmax(-1) == labels).double().mean().item(),
        "loss": nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten()).item(),
        "mean_margin": margin.mean().item(),
        "median_margin": median,
        "low_margin": low,
    }


def probe_figures(model: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, Any]:
    """The ``decision_figures`` of a model in evaluation mode, and ``predicted``, its classes.

    Raises:
        ValueError: the labels are not 1 to 512, or do not fit the logits.
    """
    if not 1 <= labels.numel() <= _MOST_LABELS:
        raise ValueError(f"probe must have 1 to {_MOST_LABELS} labels, got {labels.numel()}")
    with evaluating(model) as device:
        logits, labels = model(inputs.to(device)).cpu(), labels.cpu()
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"probe has labels of shape {tuple(labels.shape)}, which ask for logits of "
            f"{(*labels.shape, 'classes')}; the model gives {tuple(logits.shape)}"
        )
    predicted = logits.argmax(-1).flatten().tolist()
    return {**decision_figures(logits, labels), "predicted": predicted}


def boundary_figures(model: nn.Module, low: Point, high: Point) -> dict[str, Any]:
    """Where a classifier of points in the plane has the boundary between its two classes.

    Args:
        model: takes (points, 2) float32 on its device to logits, (points, 2).
        low: (x, y) of the first point of the grid, at the lower left.
        high: (x, y) of the last point, at the upper right.

    Returns:
        ``x`` and ``y``, the ends of the grid; ``n``, the points along each side; ``values``, the
        difference of the logits, z₁ - z₀, with three digits and x running fastest. The boundary is
        where they are 0.

    Raises:
        ValueError: the model has not two classes.
    """
    x, y = zip(low, high, strict=True)
    across, up = (torch.linspace(a, b, _SIDE, device="cpu") for a, b in (x, y))
    points = torch.cartesian_prod(up, across).flip(-1)
    with evaluating(model) as device:
        logits = model(points.to(device)).cpu()
    if logits.shape[-1] != 2:
        raise ValueError(f"plane must have a model of 2 classes, got {logits.shape[-1]}")
    leaning = (logits[:, 1].double() - logits[:, 0]).tolist()
    values = [float(f"{value:.3g}") for value in leaning]
    return {"x": list(x), "y": list(y), "n": _SIDE, "values": values}


def with_agreement(rows: Sequence[Row]) -> list[Row]:
    """A run's rows, with ``agreement`` in the place of ``predicted`` in those of ``decisions``.

    It is the share of examples for which the model predicts what it predicts in the last of these
    rows. A row without such classes is left as it is: in earlier versions a user could record it.
    """
    final = next((found for row in reversed(rows) if (found := _predicted(row))), [])
    return [_agreed(row, final) for row in rows]


def _agreed(row: Row, final: list[int]) -> Row:
    found = _predicted(row)
    if not found or len(found) != len(final):
        return row
    kept = {key: row[key] for key in row if key != "predicted"}
    return {**kept, "agreement": agreeing(found, final)}


def agreeing(first: Sequence[Any], second: Sequence[Any]) -> float:
    """The share of the places of two sequences at which they are equal."""
    return statistics.fmean(a == b for a, b in zip(first, second, strict=True))


def _predicted(row: Row) -> list[int]:
    classes = row.get("predicted") if row["quantity"] == "decisions" else None
    return classes if isinstance(classes, list) else []


class Alignment(NamedTuple):
    """How early a model came to decide as it does in the end.

    Attributes:
        step: the first step with an agreement of at least 0.9; ``None`` if there is none. The
            agreement may fall below that again later.
        loss_fall: the loss's fall up to that step, as a share of its fall in all. A small share is
            an early alignment. ``None`` if ``step`` is ``None``, if the loss did not fall, or if
            one of the losses is not known.
    """

    step: int | None
    loss_fall: float | None


def aligned(rows: Sequence[Row]) -> Alignment:
    """The alignment of a model, from what was recorded of it during training.

    Args:
        rows: with ``step``, ``agreement`` and ``loss``, from the untrained model to the trained.
    """
    at = next((row for row in rows if row["agreement"] >= LEVEL), None)
    if at is None:
        return Alignment(step=None, loss_fall=None)
    first, then, last = (row["loss"] for row in (rows[0], at, rows[-1]))
    fell = None not in (first, then, last) and last < first
    return Alignment(at["step"], (first - then) / (first - last) if fell else None)
