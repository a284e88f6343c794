"""The quantity ``temporal``: how the updates of a few coordinates answer to their gradients."""

from __future__ import annotations

import importlib.util
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bandwise.lens.quantities.quantity import Quantity, Row, Step, Traced
from bandwise.lens.quantities.response import response
from bandwise.optim import _checks

_SHORTEST = 32  # steps for a spectrum


class Temporal(Quantity):
    """Follows a few coordinates of every tensor and measures their ``response``.

    There are rows after every window, and at the end for the last window of steps. A step in which
    a tensor has no finite gradient, or a learning rate of 0, is left out of the tensor's series. A
    tensor is left out of a window in which it has less than half of the steps, or no coordinate
    that had a gradient and moved.

    It holds 8 bytes for each step of the window and each coordinate. The coordinates are chosen at
    the first step; parameters that join the optimizer later are not followed.

    Args:
        window: steps in a window, at least 32.
        coordinates: the most that are followed in a tensor.
        budget: the most that are followed in all. With many tensors each gets fewer. With more
            tensors than this, a random choice of tensors gets one each.
        seed: of the choice of coordinates.

    Raises:
        ModuleNotFoundError: scipy is not installed.
    """

    def __init__(
        self, window: int = 256, coordinates: int = 64, budget: int = 4096, seed: int = 0
    ) -> None:
        _checks.whole("window", window, low=_SHORTEST)
        _checks.whole("coordinates", coordinates, low=1)
        _checks.whole("budget", budget, low=1)
        # Raise now, not after a window of steps.
        if importlib.util.find_spec("scipy") is None:
            raise ModuleNotFoundError("the lens needs scipy: pip install 'bandwise[study]'")
        self.window, self.coordinates, self.budget = window, coordinates, budget
        self._generator = torch.Generator().manual_seed(seed)
        # The coordinates of each tensor: their places in it, and their columns in the buffer.
        self._places: dict[str, Tensor] = {}
        self._columns: dict[str, slice] = {}
        # The gradients and the updates of each device's tensors: (2, window, coordinates).
        self._buffers: dict[torch.device, Tensor] = {}
        self._starts: dict[str, Tensor] = {}
        self._count = self._reported = self._step = 0

    def before(self, step: Step) -> None:
        if not self._places:
            self._follow(step.tensors, self._choose(step.tensors))
        self._starts, gradients = {}, {}
        for t in step.tensors:
            if t.grad is not None and t.name in self._places:
                places = self._places[t.name]
                gradient = _taken(t.grad, places)
                gradients[t.name] = gradient if t.grad_scale == 1 else gradient / t.grad_scale
                self._starts[t.name] = _taken(t.param, places)
        self._store(0, gradients)

    def after(self, step: Step) -> None:
        moved = [t for t in step.tensors if t.name in self._starts]
        updates = {}
        if moved:
            starts = [self._starts[t.name] for t in moved]
            kept = torch._foreach_mul(starts, [1 - t.decay for t in moved])
            ends = [_taken(t.param, self._places[t.name]) for t in moved]
            differences = list(torch._foreach_sub(kept, ends))
            # With a learning rate of 0 the update is NaN: it is not known.
            torch._foreach_div_(differences, [float(t.group["lr"]) for t in moved])
            updates = {t.name: u for t, u in zip(moved, differences, strict=True)}
        self._store(1, updates)
        self._starts = {}
        self._count += 1
        self._step = step.number

    def rows(self, closing: bool = False) -> list[Row]:
        new = self._count - self._reported
        if new == 0 or (new < self.window and not closing):
            return []
        self._reported = self._count
        filled = min(self._count, self.window)
        if filled < _SHORTEST:
            return []
        # From the oldest step to the newest.
        order = torch.arange(self._count - filled, self._count) % self.window
        on_cpu = {device: buffer.cpu()[:, order] for device, buffer in self._buffers.items()}
        series = {}
        for name, places in self._places.items():
            g, u = on_cpu[places.device][..., self._columns[name]]
            known = g.isfinite().all(1) & u.isfinite().all(1)
            if 2 * known.sum() >= filled:
                series[name] = g[known], u[known]
        segment = filled // 4
        figures = {name: response(g, u, segment) for name, (g, u) in series.items()}
        if series:
            figures["all"] = _whole_model(list(series.values()), segment)
        return [
            {"step": self._step, "quantity": "temporal", "tensor": name, **some}
            for name, some in figures.items()
            if some["coordinates"]
        ]

    def state_dict(self) -> dict[str, Any]:
        return {
            "window": self.window,
            "count": self._count,
            "reported": self._reported,
            "step": self._step,
            "places": dict(self._places),
            "gradients": {name: self._held(name)[0] for name in self._places},
            "updates": {name: self._held(name)[1] for name in self._places},
        }

    def load_state_dict(self, state: dict[str, Any], tensors: Sequence[Traced]) -> None:
        places = state["places"]
        if state["window"] != self.window:
            raise ValueError(
                f"window must be the state_dict's, {state['window']}, got {self.window}"
            )
        missing = places.keys() - {t.name for t in tensors}
        if missing:
            raise ValueError(
                f"the state_dict follows {min(missing)!r}, which is not among the optimizer's "
                "parameters"
            )
        self._count, self._reported = state["count"], state["reported"]
        self._step = state["step"]
        self._follow(tensors, places)
        for name in self._places:
            for held, kind in zip(self._held(name), ("gradients", "updates"), strict=True):
                held.copy_(state[kind][name])

    def _held(self, name: str) -> Tensor:
        """The gradients and updates of one tensor, (2, window, coordinates)."""
        return self._buffers[self._places[name].device][..., self._columns[name]]

    def _choose(self, tensors: Sequence[Traced]) -> dict[str, Tensor]:
        """The places of the coordinates in every tensor that is followed."""
        tensors = [t for t in tensors if t.param.numel()]
        chosen = torch.randperm(len(tensors), generator=self._generator)[: self.budget].sort()
        each = min(self.coordinates, max(1, self.budget // max(1, len(tensors))))
        places = {}
        for i in chosen.values.tolist():
            numel = _real(tensors[i].param).numel()
            places[tensors[i].name] = _distinct(numel, min(each, numel), self._generator)
        return places

    def _follow(self, tensors: Sequence[Traced], places: dict[str, Tensor]) -> None:
        self._places, self._columns = {}, {}
        widths: dict[torch.device, int] = defaultdict(int)
        for t in tensors:
            if t.name in places:
                device, start = t.param.device, widths[t.param.device]
                widths[device] += len(places[t.name])
                self._places[t.name] = places[t.name].to(device)
                self._columns[t.name] = slice(start, widths[device])
        self._buffers = {
            device: torch.full((2, self.window, width), math.nan, device=device)
            for device, width in widths.items()
        }

    def _store(self, kind: int, found: dict[str, Tensor]) -> None:
        """Write the values of a step; NaN for tensors without any."""
        parts: dict[torch.device, list[Tensor]] = defaultdict(list)
        for name, places in self._places.items():
            if name in found:
                values = found[name]
            else:
                values = torch.full_like(places, math.nan, dtype=torch.float32)
            parts[places.device].append(values)
        for device, some in parts.items():
            self._buffers[device][kind, self._count % self.window] = torch.cat(some)


def _whole_model(series: list[tuple[Tensor, Tensor]], segment: int) -> dict[str, Any]:
    """The response of the coordinates of all tensors that have the most steps."""
    steps = max(len(g) for g, _ in series)
    series = [(g, u) for g, u in series if len(g) == steps]
    numbers = [torch.full(g.shape[1:], i) for i, (g, _) in enumerate(series)]
    gradient, update = (torch.cat(some, 1) for some in zip(*series, strict=True))
    return response(gradient, update, segment, torch.cat(numbers))


def _distinct(numel: int, count: int, generator: torch.Generator) -> Tensor:
    """Distinct places in a tensor, sorted. A large tensor needs no permutation of all places."""
    if numel <= 4 * count:
        return torch.randperm(numel, generator=generator)[:count].sort().values
    places: Tensor = torch.unique(torch.randint(numel, (2 * count,), generator=generator))
    kept = torch.randperm(len(places), generator=generator)[:count]
    return places[kept].sort().values


def _taken(tensor: Tensor, places: Tensor) -> Tensor:
    values = torch.take(_real(tensor.detach()), places)
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _real(tensor: Tensor) -> Tensor:
    """Real and imaginary parts as coordinates of their own."""
    real: Tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return real
