"""The steps of an optimizer, observed by its own hooks."""

import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

from torch.optim import Optimizer

from bandwise.lens.quantities.quantity import Step


class StepHooks:
    """Call back around every step of an optimizer.

    A step that fails, or that a ``GradScaler`` skips, is not reported as taken.

    Args:
        optimizer: the one whose ``step`` is called.
        before: called with what the gradients are still multiplied by, when they are there and the
            parameters have not moved: with a closure, after its first evaluation.
        after: called with what ``before`` returned, when the parameters have moved.
    """

    def __init__(
        self, optimizer: Optimizer, before: Callable[[float], Step], after: Callable[[Step], None]
    ) -> None:
        self._optimizer, self._before, self._after = optimizer, before, after
        self._call: FrameType | None = None
        self._step: Step | None = None
        self._handles = (
            optimizer.register_step_pre_hook(self._pre),
            optimizer.register_step_post_hook(self._post),
        )

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._call = self._step = None

    def _pre(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        # A class whose step calls super().step() has hooks around both. The outer call is the
        # step. A step that failed leaves its call here, but that call does not run any more.
        call = sys._getframe(1)
        if any(frame is self._call for frame, _ in traceback.walk_stack(call)):
            return None
        self._call, self._step = call, None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._see()
            return None

        def observed() -> Any:
            loss = closure()
            if self._step is None:
                self._see()
            return loss

        if len(args) > 1:
            return (args[0], observed, *args[2:]), kwargs
        return args, {**kwargs, "closure": observed}

    def _see(self) -> None:
        # GradScaler gives a fused optimizer scaled gradients, their scale, and whether to skip.
        skipped = getattr(self._optimizer, "found_inf", None)
        if skipped is not None and skipped.item():
            return
        scale = getattr(self._optimizer, "grad_scale", None)
        self._step = self._before(1.0 if scale is None else scale.item())

    def _post(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        step = self._step
        if step is not None and sys._getframe(1) is self._call:
            # The step holds the gradients: it must not keep them alive.
            self._call = self._step = None
            self._after(step)
