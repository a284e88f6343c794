"""What a classifier decides, and how early in training it decides as it does in the end.

The NSF paper claims "early decision-boundary alignment, where accuracy improves even while loss
remains high". Its text is not at hand. Here a model is aligned when it already decides as the
trained model does.

Logits are (…, classes) and labels (…) int64: one for each example, or for each token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bandwise.lens.quantities.quantity import Row, evaluating
from bandwise.optim import _checks

# The agreement at which decisions count as the final ones.
LEVEL = 0.9
# Every look stores as many classes.
_MOST_LABELS = 512


def agreement(logits: Tensor, final: Tensor) -> float:
    """The share of examples for which both logits name the same class, in [0, 1].

    Raises:
        ValueError: the shapes differ.
    """
    if logits.shape != final.shape:
        raise ValueError(
            f"logits must have the shape of final, {tuple(final.shape)}, got {tuple(logits.shape)}"
        )
    return agreeing(*(some.argmax(-1).flatten().tolist() for some in (logits, final)))


def agreeing(classes: Sequence[int], final: Sequence[int]) -> float:
    """``agreement`` of predicted classes."""
    return sum(a == b for a, b in zip(classes, final, strict=True)) / len(final)


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """The margin of each example: z_y - max_{k≠y} z_k for logits z and label y, in nats.

    It is the log odds of the right class over the likeliest wrong one: negative where the model is
    wrong, 0 on the boundary. It grows with the model's confidence as well as with the distance to
    the boundary.

    Returns:
        (…), of the logits' type.
    """
    right = labels.unsqueeze(-1)
    wrong = logits.scatter(-1, right, -torch.inf).amax(-1)
    return logits.gather(-1, right).squeeze(-1) - wrong


def margin_figures(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """``mean_margin``, ``median_margin`` and ``low_margin`` (the 10th percentile) of ``margins``.

    In nats. The quantiles interpolate linearly.
    """
    values = margins(logits.double(), labels).flatten().cpu()
    low, median = values.quantile(values.new_tensor([0.1, 0.5])).tolist()
    return {"mean_margin": values.mean().item(), "median_margin": median, "low_margin": low}


def decision_figures(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """``accuracy``, ``loss`` (the mean cross-entropy in nats), and the ``margin_figures``."""
    logits = logits.double()
    loss = nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten())
    return {
        "accuracy": (logits.argmax(-1) == labels).double().mean().item(),
        "loss": loss.item(),
        **margin_figures(logits, labels),
    }


def probe_figures(model: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, Any]:
    """The ``decision_figures`` of a model in evaluation mode, and ``predicted``, its classes.

    Args:
        model: called with the inputs on its device.
        inputs: of the examples.
        labels: 1 to 512 right classes.

    Raises:
        ValueError: the labels are too few or too many, or do not fit the logits.
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
    return {
        **decision_figures(logits, labels),
        "predicted": logits.argmax(-1).flatten().tolist(),
    }


def with_agreement(rows: Sequence[Row]) -> list[Row]:
    """A run's rows, with ``agreement`` in the place of ``predicted`` in those of ``decisions``.

    It is the share of examples for which the model predicts what it predicts in the last of these
    rows. A row without such classes is left as it is: in earlier versions a user could record it.
    """
    final = next((found for row in reversed(rows) if (found := _predicted(row))), [])
    return [
        {
            **{key: value for key, value in row.items() if key != "predicted"},
            "agreement": agreeing(found, final),
        }
        if (found := _predicted(row)) and len(found) == len(final)
        else row
        for row in rows
    ]


def _predicted(row: Row) -> list[int]:
    classes = row.get("predicted") if row["quantity"] == "decisions" else None
    return classes if isinstance(classes, list) else []


@dataclass(frozen=True)
class Alignment:
    """How a model came to decide as it does in the end.

    Attributes:
        rows: one for each look: ``step``, ``agreement`` with the final model, and the
            ``decision_figures``.
        step: the first step with an agreement of at least the level; ``None`` if there is none.
            The agreement may fall below the level again later.
        loss_fall: the loss's fall up to that step, as a share of its fall from the first row to
            the final model. A small share is an early alignment. ``None`` if ``step`` is ``None``,
            if the loss did not fall, or if one of the losses is not known.
    """

    rows: list[Row]
    step: int | None
    loss_fall: float | None


def alignment(
    history: Iterable[tuple[int, Tensor]], final: Tensor, labels: Tensor, level: float = LEVEL
) -> Alignment:
    """The alignment of a model, from its logits during training.

    Args:
        history: (step, logits) in the order of the steps, on one fixed held-out set. The loss's
            fall is counted from the first entry, so begin with the untrained model.
        final: logits of the trained model on the same set.
        labels: the right classes.
        level: the agreement that counts as aligned, in [0, 1].

    Raises:
        ValueError: the history is empty, or logits do not have the shape of ``final``.
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
    """``alignment`` from figures that were recorded during training.

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
