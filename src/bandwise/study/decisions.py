"""What a task's model decides, measured as a training run is evaluated.

Nothing here watches a step of the optimizer. The figures go to the lens's log beside those that do
(``bandwise.lens.Lens.record``), and are of these quantities:

- ``decisions``: ``accuracy``, ``loss`` and margins on the task's probe
  (``bandwise.lens.quantities.boundary.decision_figures``), and ``predicted``, the classes.
- ``boundary``: on a grid over the task's plane, how far the model leans to class 1.
- ``activations``: ``bandwise.lens.quantities.activations.activation_figures`` on the probe.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from bandwise.lens.quantities._evaluating import evaluating
from bandwise.lens.quantities.activations import activation_figures
from bandwise.lens.quantities.boundary import agreeing, boundary_grid, decision_figures
from bandwise.lens.quantities.quantity import Row
from bandwise.tasks import Task
from bandwise.tasks.task import PROBE_SIZE

_GRID = 33


def figures(
    task: Task, model: nn.Module, *, boundary: bool, activations: bool
) -> dict[str, dict[str, Any]]:
    """The figures of the model as it is now, by quantity; those that the task has something for.

    Args:
        task: says with its ``probe`` and ``plane`` what to look at.
        model: of the task, on any device.
        boundary: whether to look at the plane, too.
        activations: whether to look into the model, too.

    Raises:
        ValueError: the probe or the plane does not fit the model, or the probe is too large.
    """
    found: dict[str, dict[str, Any]] = {}
    probe, plane = task.probe(), task.plane()
    if probe is not None:
        found["decisions"] = _decisions(model, *probe)
    if boundary and plane is not None:
        found["boundary"] = _boundary(model, *plane)
    if activations and probe is not None:
        found["activations"] = {**activation_figures(model, [probe[0]])}
    # A model may have no layer of those whose activations are known.
    return {quantity: some for quantity, some in found.items() if some}


def with_agreement(rows: list[Row]) -> list[Row]:
    """A run's rows, with ``agreement`` in the place of ``predicted``: the share of examples for
    which the model predicts what it predicts at the last of the rows."""
    predictions = [row["predicted"] for row in rows if row["quantity"] == "decisions"]
    found = []
    for row in rows:
        if row["quantity"] == "decisions":
            row = dict(row)
            row["agreement"] = agreeing(row.pop("predicted"), predictions[-1])
        found.append(row)
    return found


def _decisions(model: nn.Module, inputs: Tensor, labels: Tensor) -> dict[str, Any]:
    if not 1 <= labels.numel() <= PROBE_SIZE:
        raise ValueError(
            f"the task's probe must have 1 to {PROBE_SIZE} labels, got {labels.numel()}"
        )
    with evaluating(model) as device:
        logits = model(inputs.to(device)).cpu()
    if logits.shape[:-1] != labels.shape:
        raise ValueError(
            f"the task's probe has labels of shape {tuple(labels.shape)}, which ask for logits of "
            f"{(*labels.shape, 'classes')}; the model gives {tuple(logits.shape)}"
        )
    return {
        **decision_figures(logits, labels),
        "predicted": logits.argmax(-1).flatten().tolist(),
    }


def _boundary(
    model: nn.Module, low: tuple[float, float], high: tuple[float, float]
) -> dict[str, Any]:
    logits = boundary_grid(model, low, high, _GRID).logits
    if logits.shape[-1] != 2:
        raise ValueError(f"a task with a plane must have 2 classes, its model {logits.shape[-1]}")
    leaning = (logits[..., 1].double() - logits[..., 0]).flatten().tolist()
    x, y = zip(low, high, strict=True)
    return {
        "x": list(x),
        "y": list(y),
        "n": _GRID,
        "values": [float(f"{value:.3g}") for value in leaning],
    }
