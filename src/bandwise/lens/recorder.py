"""The lens: records quantities around any training loop, by the optimizer's hooks alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bandwise.lens import log
from bandwise.lens.decay import DecayTrial
from bandwise.lens.hooks import StepHooks
from bandwise.lens.quantities.activations import activation_figures
from bandwise.lens.quantities.decisions import Point, boundary_figures, probe_figures
from bandwise.lens.quantities.quantity import Quantity, Row, Step, Traced
from bandwise.lens.quantities.spatial import Spatial
from bandwise.lens.quantities.temporal import Temporal
from bandwise.lens.quantities.weights import Weights
from bandwise.optim import _checks
from bandwise.optim.smi import SMI

# Figures are drawn from the rows of these quantities.
_OWN = ("temporal", "spatial", "weights", "decisions", "boundary", "activations")


class Writer(Protocol):
    """The part of ``torch.utils.tensorboard.SummaryWriter`` that the lens uses."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """Show a number at a step."""


class Lens:
    """Records what an optimizer does to its gradients, and leaves the training as it is.

    Inside the ``with``, the optimizer's own hooks observe every ``optimizer.step()``. They are
    removed at its end, also after an exception. The lens does not touch parameters, gradients,
    state or torch's generators: training with it and without it is bitwise the same.

    It works with any torch optimizer, alone or within ``bandwise.SMI``, with closures, gradient
    accumulation, frozen and unused parameters, compiled models and ``GradScaler``. A step that
    ``GradScaler`` skips does not count. The gradient of a closure is that of its first evaluation.
    Sparse gradients, and the sharded parameters of ``fully_shard`` and tensor parallel, are not
    measured. With several processes, use the lens in one of them.

    Rows are appended to ``lens.jsonl`` in ``out``, each a JSON object with ``step``, ``quantity``,
    ``tensor`` (a parameter's name or ``"all"``) and the quantity's figures. A log holds one
    training. Where there is a log, continue it (``load_state_dict``, or ``start``) or begin a new
    one (``start=0``).

    Args:
        model: gives the parameters their names.
        optimizer: the one whose ``step`` is called: SMI, not its base.
        every: costly figures are measured at the first step and at every so many.
        out: the folder of the log.
        quantities: what to measure; by default ``Temporal``, ``Spatial`` and ``Weights``.
        start: the steps that this training has taken before. The log in ``out`` is continued;
            rows of later steps are removed. 0 begins a new log and removes the one that is there.
            By default the folder must hold no log.
        writer: a TensorBoard ``SummaryWriter``. It is given every number as well, under
            ``quantity/figure/tensor``.

    Raises:
        FileExistsError: at the ``with``: the folder holds a log and ``start`` is not given.
        ValueError: at the ``with``: the log to continue is damaged, or of another model.

    Examples:
        >>> with Lens(model, optimizer, out="lens") as lens:
        ...     train(model, optimizer)
        >>> lens.summary()
        >>> bandwise.figures.lens_figures({"adamw": [Lens.read("lens")]})
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        every: int = 50,
        out: str | Path = "lens",
        *,
        quantities: Iterable[Quantity] | None = None,
        start: int | None = None,
        writer: Writer | None = None,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            kind = type(optimizer).__name__
            raise TypeError(f"optimizer must be a torch.optim.Optimizer, got {kind}")
        _checks.whole("every", every, low=1)
        if start is not None:
            _checks.whole("start", start, low=0)
        self.model, self.optimizer, self.every, self.out = model, optimizer, every, Path(out)
        self.step, self._start = start or 0, start
        chosen = (Temporal(), Spatial(), Weights()) if quantities is None else quantities
        self._quantities: list[Quantity] = list(chosen)
        self._writer = writer
        self._names = {
            param: name.replace("_orig_mod.", "") for name, param in model.named_parameters()
        }
        self._decay = DecayTrial(optimizer.base if isinstance(optimizer, SMI) else optimizer)
        # The stamp of the log to continue, if there is one.
        self._stamp: dict[str, Any] | None = None
        self._hooks: StepHooks | None = None
        self._log: log.Log | None = None

    def __enter__(self) -> Lens:
        if self._log is not None:
            raise RuntimeError("this lens is in use already")
        stamp = self._stamp
        size = log.check(self.out, stamp) if stamp else log.kept(self.out, self._start)
        known = {"all", *self._names.values(), *(t.name for t in self._traced())}
        log.check_tensors(self.out, size, known)
        self._log = log.Log(self.out, size)
        self._hooks = StepHooks(self.optimizer, self._before, self._after)
        return self

    def __exit__(self, *_: object) -> None:
        if self._hooks is not None:
            self._hooks.remove()
        try:
            self._write(closing=True)
        finally:
            # A lens that is entered again continues its own log.
            self._stamp = self._open_log().close()
            self._log = self._hooks = None

    def record(self, quantity: str, figures: Mapping[str, Any]) -> None:
        """Write figures of your own, of the whole model as it is now.

        Args:
            quantity: what was measured; not the name of one of the lens's own quantities.
            figures: numbers, NaN where one is not defined, or short lists.

        Raises:
            RuntimeError: it is called outside the ``with``.
            ValueError: ``quantity`` is a name of the lens's own.
        """
        if quantity in _OWN:
            raise ValueError(
                f"quantity must not be one that the lens measures itself ({', '.join(_OWN)}), "
                f"got {quantity!r}"
            )
        self._append(quantity, figures)

    def look(
        self,
        probe: tuple[Tensor, Tensor] | None = None,
        plane: tuple[Point, Point] | None = None,
        activations: bool = False,
    ) -> None:
        """Measure what the model does with given inputs, in evaluation mode, as it is now.

        Args:
            probe: inputs and labels of held-out examples, the same at every look, for a row of
                their ``probe_figures``. 1 to 512 labels.
            plane: (x, y) of the lower left and of the upper right corner, for a row of
                ``boundary_figures``. The model takes points, (n, 2), to the logits of two classes.
            activations: whether to measure the ``activation_figures`` of the probe's inputs.

        Raises:
            RuntimeError: it is called outside the ``with``.
            ValueError: the probe or the plane does not fit the model.
        """
        if probe is not None:
            self._append("decisions", probe_figures(self.model, *probe))
        if plane is not None:
            self._append("boundary", boundary_figures(self.model, *plane))
        if probe is not None and activations:
            figures = activation_figures(self.model, [probe[0]])
            # A model may have no layer of those whose activations are known.
            if figures:
                self._append("activations", figures)

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` needs to continue from here: tensors and plain data.

        Put it into the checkpoints of the training. A training that is cut off and resumed then
        leaves the same log, byte for byte, as one that runs through.

        Raises:
            RuntimeError: it is called outside the ``with``.
        """
        return {
            "step": self.step,
            **self._open_log().stamp(),
            "quantities": [quantity.state_dict() for quantity in self._quantities],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where a lens with the same arguments was when it gave ``state``.

        The ``with`` that follows removes what was written to the log after ``state``.

        Raises:
            RuntimeError: it is called within the ``with``.
            ValueError: the lens measures something else, or its log does not begin as it did.
        """
        if self._log is not None:
            raise RuntimeError("load the state of a lens before its `with`, not within")
        states = state["quantities"]
        if len(states) != len(self._quantities):
            raise ValueError(
                f"the state_dict has {len(states)} quantities, the lens {len(self._quantities)}"
            )
        log.check(self.out, state)
        tensors = self._traced()
        for quantity, saved in zip(self._quantities, states, strict=True):
            quantity.load_state_dict(saved, tensors)
        self.step = state["step"]
        # Without the tensors.
        self._stamp = {name: value for name, value in state.items() if name != "quantities"}

    def summary(self) -> list[Row]:
        """The log's last row of every quantity for the whole model, without its lists."""
        last = {row["quantity"]: row for row in self.read(self.out) if row["tensor"] == "all"}
        return [
            {key: value for key, value in row.items() if not isinstance(value, list)}
            for row in last.values()
        ]

    @staticmethod
    def read(folder: str | Path) -> list[Row]:
        """The rows of a folder's log, also while it is written.

        Raises:
            FileNotFoundError: there is no log.
            ValueError: a line is damaged.
        """
        return log.read(Path(folder))

    def _before(self, grad_scale: float) -> Step:
        number = self.step + 1
        due = number == 1 or number % self.every == 0
        step = Step(number, self.optimizer, due, self._traced(grad_scale, self._decay.shares()))
        with _measuring():
            for quantity in self._quantities:
                quantity.before(step)
        return step

    def _after(self, step: Step) -> None:
        with _measuring():
            for quantity in self._quantities:
                quantity.after(step)
        self.step = step.number
        self._write()

    def _traced(self, grad_scale: float = 1.0, decay: list[float] | None = None) -> list[Traced]:
        return [
            Traced(
                name=self._names.get(param, f"group{i}.{j}"),
                param=param,
                grad=_strided(param.grad),
                grad_scale=grad_scale,
                group=group,
                decay=decay[i] if decay else 0.0,
            )
            for i, group in enumerate(self.optimizer.param_groups)
            for j, param in enumerate(group["params"])
            # All processes would have to take part in looking at what is sharded.
            if not hasattr(param, "device_mesh")
        ]

    def _write(self, closing: bool = False) -> None:
        with _measuring():
            for quantity in self._quantities:
                for tensor, figures in quantity.rows(closing).items():
                    self._append(quantity.name, figures, tensor)

    def _append(self, quantity: str, figures: Mapping[str, Any], tensor: str = "all") -> None:
        head = {"step": self.step, "quantity": quantity, "tensor": tensor}
        row = self._open_log().append({**head, **figures})
        if self._writer is not None:
            for key, value in row.items():
                if key != "step" and isinstance(value, (int, float)):
                    self._writer.add_scalar(f"{quantity}/{key}/{tensor}", value, self.step)

    def _open_log(self) -> log.Log:
        if self._log is None:
            raise RuntimeError("a lens records within its `with` alone")
        return self._log


@contextmanager
def _measuring() -> Iterator[None]:
    """No autograd, and the CPU for new tensors, whatever the user's default device is."""
    # A default device makes every call of torch slower, so it is set only where it is needed.
    on_cpu = torch.get_default_device().type == "cpu"
    with torch.no_grad(), nullcontext() if on_cpu else torch.device("cpu"):
        yield


def _strided(grad: Tensor | None) -> Tensor | None:
    return grad if grad is not None and grad.layout == torch.strided else None
