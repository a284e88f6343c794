"""The figures of every weight matrix, as training goes on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bandwise.lens.quantities.quantity import Row, Step, Traced
from bandwise.lens.quantities.weights import weight_figures
from bandwise.optim import _checks
from bandwise.optim._spectrum import matrix_shape


class Weights:
    """Measures ``weight_figures`` of every parameter of two dimensions or more, after the step.

    The row of the whole model has their means; every tensor counts alike. Singular values are
    costly and change slowly: hence the lower rate, and a budget. Weights are measured at the end
    of the recording, too, as they are then.

    Args:
        every: measured at the first of the steps that are due, and at every so many of them: with
            the lens's own ``every=50``, once in 1,000 steps.
        budget: multiplications, counted as n d min(n, d) for a matrix of n x d. A random choice of
            matrices that keep within it is measured, the same every time; the default is four
            times what the paper's GPT needs, and seconds of one processor.
        seed: of the choice.
    """

    def __init__(self, every: int = 20, budget: int = 1 << 34, seed: int = 0) -> None:
        _checks.whole("every", every, low=1)
        _checks.whole("budget", budget, low=1)
        self.every, self.budget = every, budget
        self._generator = torch.Generator().manual_seed(seed)
        self._chosen: set[str] | None = None
        self._params: dict[str, Tensor] = {}
        self._due = self._step = self._measured = 0
        self._rows: list[Row] = []

    def before(self, step: Step) -> None:
        pass

    def after(self, step: Step) -> None:
        if self._chosen is None:
            self._chosen = self._choose(step.tensors)
        self._follow(step.tensors)
        self._step = step.number
        if step.due:
            if self._due % self.every == 0:
                self._measure()
            self._due += 1

    def _measure(self) -> None:
        self._measured = self._step
        figures = {
            name: weight_figures(param)
            for name, param in self._params.items()
            # A run that diverged has no figures.
            if param.isfinite().all()
        }
        if figures:
            names = next(iter(figures.values()))
            figures["all"] = {
                name: statistics.fmean(some[name] for some in figures.values()) for name in names
            }
        for tensor, some in figures.items():
            row = {"step": self._step, "quantity": "weights", "tensor": tensor}
            self._rows.append({**row, **some})

    def _follow(self, tensors: Sequence[Traced]) -> None:
        # Not the whole step: it would keep its gradients alive.
        self._params = {t.name: t.param for t in tensors if t.name in (self._chosen or ())}

    def _choose(self, tensors: Sequence[Traced]) -> set[str]:
        chosen, spent = set(), 0
        for i in torch.randperm(len(tensors), generator=self._generator).tolist():
            t = tensors[i]
            cost = _cost(t)
            if cost and spent + cost <= self.budget:
                chosen.add(t.name)
                spent += cost
        return chosen

    def rows(self, closing: bool = False) -> list[Row]:
        if closing and self._measured < self._step:
            self._measure()
        rows, self._rows = self._rows, []
        return rows

    def state_dict(self) -> dict[str, Any]:
        chosen = None if self._chosen is None else sorted(self._chosen)
        return {
            "due": self._due,
            "step": self._step,
            "measured": self._measured,
            "chosen": chosen,
        }

    def load_state_dict(self, state: dict[str, Any], tensors: Sequence[Traced]) -> None:
        self._due = state["due"]
        # States from before there was a last measurement have neither.
        self._step, self._measured = state.get("step", 0), state.get("measured", 0)
        self._chosen = None if state["chosen"] is None else set(state["chosen"])
        self._follow(tensors)


def _cost(t: Traced) -> int:
    """Multiplications; 0 for what has no figures."""
    if t.param.ndim < 2 or t.param.is_complex():
        return 0
    shape = matrix_shape(t.param.shape) if t.param.numel() else (0, 0)
    return math.prod(shape) * min(shape)
