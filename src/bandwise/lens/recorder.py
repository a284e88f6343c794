"""The lens: measures around any training loop, by the optimizer's hooks alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.utils.hooks import RemovableHandle

from bandwise import files
from bandwise.figures.instruments.drawn import figures
from bandwise.lens import log
from bandwise.lens.quantities.quantity import Quantity, Row, Step, Traced
from bandwise.lens.quantities.spatial import Spatial
from bandwise.lens.quantities.temporal import Temporal
from bandwise.lens.quantities.weight_series import Weights
from bandwise.optim import _checks
from bandwise.optim.nsf import NSF
from bandwise.optim.smi import SMI

if TYPE_CHECKING:
    from bandwise.figures.figure import Figure


class Writer(Protocol):
    """What a ``torch.utils.tensorboard.SummaryWriter`` is to the lens."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> object:
        """Show a number at a step."""


class Lens:
    """Records what an optimizer does to its gradients, while training goes on as it would have.

    Inside the ``with``, every ``optimizer.step()`` is observed through the optimizer's own hooks;
    after it, also after an exception, they are gone. Parameters, gradients, state and torch's
    generators are never touched: training with the lens and without it is bitwise the same.

    It works with any torch optimizer, alone or within ``bandwise.SMI``, with closures,
    gradient accumulation, frozen and unused parameters, ``GradScaler`` (steps that it skips do not
    count) and compiled models. The gradient of a closure is that of its first
    evaluation. Sparse gradients, and the sharded parameters of ``fully_shard`` and tensor
    parallel, are not measured. With several processes, use it in one of them.

    Rows are appended to ``lens.jsonl`` in ``out``, each a JSON object with ``step``, ``quantity``,
    ``tensor`` (a parameter's name or ``"all"``) and the quantity's figures.

    With its state in the training's checkpoints (``state_dict``), a training that is cut off
    and resumed leaves the same log as one that never was, byte for byte.

    A log holds one training. Where there is a log, a lens must be told whether it is to continue
    it (``load_state_dict``, or ``start``) or to begin a new one (``start=0``).

    Args:
        model: gives the parameters their names.
        optimizer: the one whose ``step`` is called: SMI, not its base.
        every: costly figures are measured at the first step and at every so many.
        out: the folder of the log.
        quantities: what to measure; by default ``Temporal``,
            ``Spatial`` and ``Weights``.
        start: the steps that this training has taken before. The log in ``out`` is continued;
            rows of later steps, which a run that was cut off has left, are removed. 0 begins a new
            log, and removes the one that is there. By default there must be none.
        writer: a TensorBoard ``SummaryWriter`` that is given every number as well, under
            ``quantity/figure/tensor``.

    Examples:
        >>> with Lens(model, optimizer, out="lens") as lens:
        ...     for batch in batches:
        ...         optimizer.zero_grad()
        ...         loss(model, batch).backward()
        ...         optimizer.step()
        >>> lens.summary()
        >>> Lens.read("lens")
        >>> for figure in lens.figures():
        ...     print(figure.title)
        ...     figure.plot.show()
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
        self.optimizer, self.every, self.out = optimizer, every, Path(out)
        self.step = start or 0
        chosen = (Temporal(), Spatial(), Weights()) if quantities is None else quantities
        self._quantities: list[Quantity] = list(chosen)
        self._start, self._writer = start, writer
        self._names = {
            param: name.replace("_orig_mod.", "") for name, param in model.named_parameters()
        }
        self._hooks: list[RemovableHandle] = []
        self._log: log.Log | None = None
        # What is kept of the log that is there, where it is not told by steps.
        self._log_bytes = 0 if start == 0 else None
        self._current: Step | None = None
        self._call: FrameType | None = None

    def __enter__(self) -> Lens:
        if self._log is not None:
            raise RuntimeError("this lens is in use already")
        size = self._log_bytes
        if size is None:
            self._check_told()
            size = log.until(self.out, self.step)
        self._check_same_model(size)
        self._log = log.Log(self.out, size)
        self._log_bytes = None
        self._hooks = [
            self.optimizer.register_step_pre_hook(self._before),
            self.optimizer.register_step_post_hook(self._after),
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        try:
            self._write(closing=True)
        finally:
            if self._log is not None:
                self._log.close()
            self._log = self._current = self._call = None
            # Entered again, it continues its own log.
            self._start = self.step

    def record(self, quantity: str, figures: Mapping[str, Any]) -> None:
        """Write figures of the whole model as it is now, measured elsewhere, such as at an
        evaluation.

        Args:
            quantity: what was measured; a name that no quantity of the lens has.
            figures: numbers, ``None`` where one is not defined, or short lists.

        Raises:
            RuntimeError: it is called outside the ``with``.
        """
        self._append({"step": self.step, "quantity": quantity, "tensor": "all", **figures})

    def state_dict(self) -> dict[str, Any]:
        """What ``load_state_dict`` needs to go on from here: tensors and plain data.

        As with an optimizer, the tensors are the lens's own: save them before the next step.

        Raises:
            RuntimeError: it is called outside the ``with``.
        """
        size, crc32 = self._open_log().saved()
        return {
            "step": self.step,
            "log_bytes": size,
            "log_crc32": crc32,
            "quantities": [quantity.state_dict() for quantity in self._quantities],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a lens with the same arguments was when it gave ``state``.

        To be called before the ``with``, whose log then loses all that was written later: what the
        end of that ``with`` wrote as well, of whatever step.

        Raises:
            RuntimeError: it is called within the ``with``.
            ValueError: the lens measures something else, or its log does not begin as it did.
        """
        if self._log is not None:
            raise RuntimeError("load the state of a lens before its `with`, not within")
        states, size = state["quantities"], log.size(self.out)
        if len(states) != len(self._quantities):
            raise ValueError(
                f"the state_dict has {len(states)} quantities, the lens {len(self._quantities)}"
            )
        if size < state["log_bytes"]:
            raise ValueError(
                f"the log in {self.out} had {state['log_bytes']} bytes, and has {size} now"
            )
        crc32 = files.crc32_of(self.out / log.NAME, state["log_bytes"])
        # States from before there were checksums have none.
        if state.get("log_crc32", crc32) != crc32:
            raise ValueError(f"the log in {self.out} is not what it was: its checksum does not fit")
        tensors = self._traced(1.0)
        for quantity, saved in zip(self._quantities, states, strict=True):
            quantity.load_state_dict(saved, tensors)
        self.step, self._log_bytes = state["step"], state["log_bytes"]

    def summary(self) -> list[Row]:
        """The log's last row of every quantity for the whole model, without its lists."""
        last = {row["quantity"]: row for row in self.read(self.out) if row["tensor"] == "all"}
        return [
            {key: value for key, value in row.items() if not isinstance(value, list)}
            for row in last.values()
        ]

    def figures(self) -> list[Figure]:
        """Draws what is in the log, under the optimizer's name: see ``bandwise.lens.figures``.

        Needs plotly.
        """
        return figures({type(self.optimizer).__name__: [self.read(self.out)]})

    @staticmethod
    def read(folder: str | Path) -> list[Row]:
        """The rows recorded in a folder, also while they are being recorded.

        Raises:
            FileNotFoundError: there is no log.
            ValueError: a line of it is damaged.
        """
        return log.read(Path(folder))

    def _check_told(self) -> None:
        steps = None if self._start is not None else log.steps(self.out)
        if steps is not None:
            raise FileExistsError(
                f"out must be a folder without a log, got {self.out}: its {log.NAME} holds steps "
                f"{steps[0]} to {steps[1]} of a training. To record another training name another "
                "folder, or give start=0, which removes that log; to continue that training load "
                "the lens's state_dict, or give start= the steps that it has taken"
            )

    def _check_same_model(self, size: int) -> None:
        known = {"all", *self._names.values(), *(t.name for t in self._traced(1.0))}
        strange = log.tensors(self.out, size) - known
        if strange:
            raise ValueError(
                f"model must be the one that the log in {self.out} is of: the log has a tensor "
                f"{min(strange)!r}, which this model does not have. Name another folder, or give "
                "start=0, which removes that log"
            )

    def _before(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        # A class whose step calls super().step() has hooks around both; the outer is the step. One
        # that failed left its call behind, but does not run.
        call = sys._getframe(1)
        if self._call is not None and _runs(self._call, call):
            return None
        self._call, self._current = call, None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._observe()
            return None

        # The gradients come with its first evaluation.
        def observed() -> Any:
            loss = closure()
            if self._current is None:
                self._observe()
            return loss

        if len(args) > 1:
            return (args[0], observed, *args[2:]), kwargs
        return args, {**kwargs, "closure": observed}

    @torch.no_grad()
    def _observe(self) -> None:
        # Fused optimizers are handed scaled gradients, the scale, and whether to skip the step.
        skipped = getattr(self.optimizer, "found_inf", None)
        if skipped is not None and skipped.item():
            return
        scale = getattr(self.optimizer, "grad_scale", None)
        number = self.step + 1
        due = number == 1 or number % self.every == 0
        self._current = Step(number, due, self._traced(1.0 if scale is None else scale.item()))
        for quantity in self._quantities:
            quantity.before(self._current)

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._current is None or sys._getframe(1) is not self._call:
            return
        with torch.no_grad():
            for quantity in self._quantities:
                quantity.after(self._current)
            self.step = self._current.number
            self._current = self._call = None
            self._write()

    def _traced(self, grad_scale: float) -> list[Traced]:
        base = self.optimizer.base if isinstance(self.optimizer, SMI) else self.optimizer
        return [
            Traced(
                name=self._names.get(param, f"group{i}.{j}"),
                param=param,
                grad=_dense(param.grad),
                grad_scale=grad_scale,
                group=group,
                state=self.optimizer.state.get(param, {}),
                decay=_decoupled_decay(base, group),
            )
            for i, group in enumerate(self.optimizer.param_groups)
            for j, param in enumerate(group["params"])
            # All processes would have to come to look at what is sharded.
            if not hasattr(param, "device_mesh")
        ]

    def _write(self, closing: bool = False) -> None:
        for quantity in self._quantities:
            for row in quantity.rows(closing):
                self._append(row)

    def _append(self, row: Row) -> None:
        self._open_log().append(row)
        if self._writer is not None:
            _show(row, self._writer)

    def _open_log(self) -> log.Log:
        if self._log is None:
            raise RuntimeError("a lens records within its `with` alone")
        return self._log


def _runs(call: FrameType, frame: FrameType | None) -> bool:
    """Whether a call is among those that led to a frame."""
    while frame is not None and frame is not call:
        frame = frame.f_back
    return frame is call


def _dense(grad: Tensor | None) -> Tensor | None:
    return grad if grad is not None and grad.layout == torch.strided else None


def _decoupled_decay(base: Optimizer, group: dict[str, Any]) -> float:
    """The rate of a decay that is no part of the gradient."""
    decoupled = isinstance(base, (AdamW, NSF)) or group.get("decoupled_weight_decay", False)
    return float(group["weight_decay"]) if decoupled else 0.0


def _show(row: Row, writer: Writer) -> None:
    for key, value in row.items():
        if key != "step" and isinstance(value, (int, float)):
            writer.add_scalar(f"{row['quantity']}/{key}/{row['tensor']}", value, row["step"])
