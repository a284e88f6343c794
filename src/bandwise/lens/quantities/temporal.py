"""The quantity ``temporal``: how the updates of a few coordinates answer to their gradients."""

import importlib.util
import math
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bandwise.lens.quantities.quantity import Quantity, Step, Traced, chosen
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

    name = "temporal"

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
        # The places of the coordinates in each tensor, and the tensors of each device.
        self._places: dict[str, Tensor] = {}
        self._names: dict[torch.device, list[str]] = {}
        # The last steps of each device: gradients and updates, (1, 2, coordinates).
        self._steps: dict[torch.device, deque[Tensor]] = {}
        # For each tensor the values of a step that are not known, NaN, and those that are.
        self._unknown: dict[str, Tensor] = {}
        self._gradients: dict[str, Tensor] = {}
        self._starts: dict[str, Tensor] = {}
        self._new = 0  # steps since the last rows

    def before(self, step: Step) -> None:
        if not self._places:
            self._follow(step.tensors, self._choose(step.tensors))
        self._gradients, self._starts = {}, {}
        for t in step.tensors:
            if t.grad is not None and t.name in self._places:
                places = self._places[t.name]
                gradient = _taken(t.grad, places)
                self._gradients[t.name] = gradient if t.grad_scale == 1 else gradient / t.grad_scale
                self._starts[t.name] = _taken(t.param, places)

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
        for device, names in self._names.items():
            both = (self._unknown | self._gradients, self._unknown | updates)
            parts = [torch.cat([found[name] for name in names]) for found in both]
            self._steps[device].append(torch.stack(parts)[None])
        self._gradients, self._starts = {}, {}
        self._new += 1

    def rows(self, closing: bool = False) -> dict[str, dict[str, Any]]:
        if self._new == 0 or (self._new < self.window and not closing):
            return {}
        self._new = 0
        series = {}
        for name, steps in self._series().items():
            g, u = steps.cpu().unbind(1)
            known = g.isfinite().all(1) & u.isfinite().all(1)
            if len(g) >= _SHORTEST and 2 * known.sum() >= len(g):
                series[name] = g[known], u[known], len(g) // 4
        figures = {name: response(*some) for name, some in series.items()}
        if series:
            figures["all"] = _whole_model(list(series.values()))
        return {name: some for name, some in figures.items() if some["coordinates"]}

    def state_dict(self) -> dict[str, Any]:
        places, series = dict(self._places), self._series()
        return {"window": self.window, "new": self._new, "places": places, "series": series}

    def load_state_dict(self, state: dict[str, Any], tensors: Sequence[Traced]) -> None:
        if state["window"] != self.window:
            raise ValueError(
                f"window must be the state_dict's, {state['window']}, got {self.window}"
            )
        missing = state["places"].keys() - {t.name for t in tensors}
        if missing:
            raise ValueError(
                f"the state_dict follows {min(missing)!r}, which is not among the optimizer's "
                "parameters"
            )
        self._new = state["new"]
        self._follow(tensors, state["places"])
        for device, names in self._names.items():
            steps = torch.cat([state["series"][name].to(device) for name in names], -1)
            self._steps[device].extend(steps.unsqueeze(1).unbind())

    def _series(self) -> dict[str, Tensor]:
        """The last steps of each tensor, (steps, 2, coordinates)."""
        series: dict[str, Tensor] = {}
        for device, names in self._names.items():
            widths = [len(self._places[name]) for name in names]
            parts = torch.cat([*self._steps[device]]).split_with_sizes(widths, -1)
            series |= zip(names, parts, strict=True)
        return series

    def _choose(self, tensors: Sequence[Traced]) -> dict[str, Tensor]:
        """The places of the coordinates in every tensor that is followed."""
        numels = {t.name: _real(t.param).numel() for t in tensors if t.param.numel()}
        each = min(self.coordinates, max(1, self.budget // max(1, len(numels))))
        return {
            name: _distinct(numels[name], min(each, numels[name]), self._generator)
            for name in chosen(dict.fromkeys(numels, 1), self.budget, self._generator)
        }

    def _follow(self, tensors: Sequence[Traced], places: dict[str, Tensor]) -> None:
        self._places, self._names = {}, defaultdict(list)
        for t in tensors:
            if t.name in places:
                self._places[t.name] = places[t.name].to(t.param.device)
                self._names[t.param.device].append(t.name)
        self._unknown = {
            name: torch.full_like(some, math.nan, dtype=torch.float32)
            for name, some in self._places.items()
        }
        for device, names in self._names.items():
            none = torch.empty(0, 2, sum(len(self._places[name]) for name in names), device=device)
            self._steps[device] = deque([none], maxlen=self.window)


def _whole_model(series: list[tuple[Tensor, Tensor, int]]) -> dict[str, Any]:
    """The response of the coordinates of all tensors that have the most steps."""
    most = max(len(g) for g, _, _ in series)
    series = [some for some in series if len(some[0]) == most]
    numbers = [torch.full(g.shape[1:], i) for i, (g, _, _) in enumerate(series)]
    gradients, updates, segments = zip(*series, strict=True)
    both = torch.cat(gradients, 1), torch.cat(updates, 1)
    return response(*both, segments[0], torch.cat(numbers))


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
