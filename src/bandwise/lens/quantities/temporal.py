"""What an optimizer does to slow and to fast gradients: its response over time.

At a window of consecutive steps, a few coordinates of every tensor are followed: the gradient
g_t that the optimizer is given, and its update per unit of learning rate

    u_t = (θ_t - θ_(t+1)) / lr_t - λ θ_t,

where λ is the rate of *decoupled* weight decay (AdamW's, NSF's); a decay that is part
of the gradient (SGD's, Adam's) stays in. Plain SGD has u = g. Frequencies are in cycles per
step, from 0 to 1/2; the bands low, mid and high are thirds of that range, so that white noise has
a third of its power in each. The mean of a series is its lowest frequency and is not removed.

Two effects are told apart. Momentum acts *within* a coordinate: it passes what changes slowly.
Adaptivity acts *across* coordinates: it gives some a longer step than others.

With Welch's spectra of coordinate k, Pᵍ_k(f) of g and Pᵘ_k(f) of u, they are the terms of

    ½ log(Pᵘ_k(f) / Pᵍ_k(f)) ≈ log a_k + log G(f),

fitted by least squares, each coordinate and frequency weighed by the share of the coordinate's
gradient power that lies at f, and with a median a of 1. So a coordinate counts at the frequencies
where its gradient has power: where it has none, the update's power does not come from it.

**Within**: the gain G. SGD has G = 1; momentum |1 / (1 - β exp(-2πif))|.

**Across**: log a against the log of the coordinate's sign-change rate (``rate_*``) and of
the root mean square of its gradient (``size_*``): a rank correlation, and a least-squares slope
with its 95% interval, which takes coordinates for independent. SGD has slopes of 0; Adam a size
slope of about -1 and NSF one of about -2p. With momentum a series that never changes sign gets up
to 0.1 more: its power lies at f = 0, and Welch's windows smear the gain there. For the whole model
both are taken relative to the mean of the tensor, so that no tensor is compared with another.

**Both**: R(f) = √(Σ_k Pᵘ_k(f) / Σ_k Pᵍ_k(f)), the response.
"""

from __future__ import annotations

import importlib.util
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from bandwise.lens.quantities.quantity import Row, Step, Traced
from bandwise.optim import _checks

BANDS = ("low", "mid", "high")
_EDGES = (0.0, 1 / 6, 1 / 3, 1.0)

# Where a coordinate's gradient has this much less power than on average, rounding is all it has.
_NO_POWER = 1e-10
_SHORTEST = 32  # steps that say something about frequencies
_FEWEST = 8  # coordinates that say something about a slope
_CURVE_POINTS = 8


def spectra(series: Tensor, segment: int) -> tuple[Tensor, Tensor]:
    """Welch's power spectral density of each column: Hann windows, overlapping by a half.

    Args:
        series: (steps, coordinates).
        segment: steps in a window.

    Returns:
        Frequencies in cycles per step (segment // 2 + 1,), and densities (same, coordinates).
    """
    from scipy import signal

    frequency, density = signal.welch(
        series.double().numpy(), nperseg=segment, detrend=False, axis=0
    )
    return torch.from_numpy(frequency), torch.from_numpy(density)


def response(
    gradient: Tensor, update: Tensor, segment: int | None = None, tensor: Tensor | None = None
) -> dict[str, Any]:
    """The figures of this module's docstring, for series of coordinates.

    Args:
        gradient: (steps, coordinates), g.
        update: the same, u.
        segment: steps in one of Welch's windows; a quarter of the steps by default.
        tensor: (coordinates,), for each coordinate the number of its tensor. If given, coordinates
            are compared within their tensor alone.

    Returns:
        ``steps``, ``coordinates`` (those that had a gradient and moved; without any, figures are
        NaN); lists over ``frequency``:
        ``gain`` G, ``response`` R, ``gradient_power`` and ``update_power``, the mean share of a
        coordinate's power; of each of these ``…_low``, ``…_mid``, ``…_high``: for powers the sum
        over the band, otherwise the geometric mean; ``rate_slope``, ``rate_slope_low``,
        ``rate_slope_high``, ``rate_correlation``, the same with ``size``; and the curve
        ``across_rate``, ``across_gain``: medians of sign-change rate and a in groups of
        coordinates of like rate, a relative to the mean of its tensor where ``tensor`` is given.
    """
    frequency, P_g = spectra(gradient.cpu(), segment or len(gradient) // 4)
    P_u = spectra(update.cpu(), segment or len(gradient) // 4)[1]
    # By power: Welch's windows leave a step or two at the ends out.
    known = (P_g > _NO_POWER * P_g.mean(0)) & (P_u > 0)
    alive = known.any(0)
    gradient, P_g, P_u, known = (x[:, alive] for x in (gradient.double().cpu(), P_g, P_u, known))
    members = torch.zeros(len(alive)) if tensor is None else tensor.cpu()
    members = torch.unique(members[alive], return_inverse=True)[1]

    gain, across = _within_and_across(P_g, P_u, known)
    curves = {
        "gain": gain,
        "response": (P_u.sum(1) / P_g.sum(1)).sqrt(),
        "gradient_power": (P_g / P_g.sum(0)).mean(1),
        "update_power": (P_u / P_u.sum(0)).mean(1),
    }
    rate, size = sign_change_rate(gradient), gradient.square().mean(0).sqrt()
    if tensor is not None:
        across = _centred(across, members)
    return {
        "steps": len(gradient),
        "coordinates": gradient.shape[1],
        "frequency": frequency.tolist(),
        **{name: curve.tolist() for name, curve in curves.items()},
        **_in_bands(frequency, curves),
        **_slope("rate", rate.log(), across, members),
        **_slope("size", size.log(), across, members),
        **_curve(rate, across),
    }


def sign_change_rate(series: Tensor) -> Tensor:
    """The fraction of consecutive steps between which each column changes sign.

    Pairs of steps with a zero do not count. To the rest one pair with half a change is added, so
    that the rate is never 0 and has a logarithm. NaN where more than half of the pairs have a zero.
    """
    signs = series.sign()
    products = signs[1:] * signs[:-1]
    pairs = (products != 0).sum(0)
    rate = ((products < 0).sum(0) + 0.5) / (pairs + 1)
    return rate.where(2 * pairs >= len(products), math.nan)


def _within_and_across(P_g: Tensor, P_u: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """G(f), NaN where no coordinate has power, and log a, from the powers that are known."""
    gains = ((P_u / P_g).log() / 2).where(known, 0)
    shares = P_g.where(known, 0)
    shares = shares / shares.sum(0)
    means = (shares * gains).sum(0)

    # The levels of coordinates eliminated, the normal equations in the shape remain. They leave a
    # constant open; frequencies in units of the root of their weight make them well conditioned.
    weight = shares.sum(1)
    unit = weight.sqrt().clamp(min=1e-12)
    laplacian = torch.eye(len(weight), dtype=unit.dtype) - shares @ shares.T / unit / unit[:, None]
    right = (shares * (gains - means)).sum(1) / unit
    shape = torch.linalg.pinv(laplacian, rtol=1e-8, hermitian=True) @ right / unit
    levels = means - (shares * shape[:, None]).sum(0)
    middle = levels.median() if len(levels) else math.nan
    return (shape + middle).exp().where(weight > 0, math.nan), levels - middle


def _in_bands(frequency: Tensor, curves: dict[str, Tensor]) -> dict[str, float]:
    figures = {}
    for name, curve in curves.items():
        for band, (low, high) in zip(BANDS, pairwise(_EDGES), strict=True):
            values = curve[(frequency >= low) & (frequency < high)]
            total = values.sum() if name.endswith("power") else values.log().nanmean().exp()
            figures[f"{name}_{band}"] = total.item()
    return figures


def _centred(values: Tensor, members: Tensor) -> Tensor:
    """Values less the mean of those with the same member number."""
    sums = torch.zeros(int(members.max()) + 1 if len(members) else 0, dtype=values.dtype)
    counts = sums.clone().index_add_(0, members, torch.ones_like(values))
    return values - (sums.index_add_(0, members, values) / counts)[members]


def _slope(name: str, x: Tensor, y: Tensor, members: Tensor) -> dict[str, float | None]:
    from scipy import stats

    known = x.isfinite() & y.isfinite()
    x, y = _centred(x[known], members[known]), _centred(y[known], members[known])
    keys = [f"{name}_{figure}" for figure in ("slope", "slope_low", "slope_high", "correlation")]
    # Numbers that are equal but for their rounding have no order.
    if len(x) < _FEWEST or x.std() < 1e-9:
        return dict.fromkeys(keys)
    line = stats.linregress(x.numpy(), y.numpy())
    half = stats.t.ppf(0.975, len(x) - 2) * line.stderr
    spread = y.std() >= 1e-9
    correlation = stats.spearmanr(x.numpy(), y.numpy()).statistic if spread else 0.0
    figures = (line.slope, line.slope - half, line.slope + half, correlation)
    return dict(zip(keys, map(float, figures), strict=True))


def _curve(rate: Tensor, across: Tensor) -> dict[str, list[float]]:
    known = (rate.isfinite() & across.isfinite()).nonzero().squeeze(1)
    known = known[rate[known].argsort(stable=True)]
    parts = [part for part in known.tensor_split(_CURVE_POINTS) if len(part)]
    return {
        "across_rate": [rate[part].median().item() for part in parts],
        "across_gain": [across[part].median().exp().item() for part in parts],
    }


@dataclass(frozen=True)
class _Sampled:
    """The coordinates of one tensor, in the buffer of its device."""

    places: Tensor
    columns: slice
    nothing: Tensor


class Temporal:
    """Follows a few coordinates of every tensor and measures their ``response``.

    There are rows after every window, and at the end for the last window of steps. A step in which
    a tensor has no finite gradient, or a learning rate of 0, is left out of that tensor's series,
    and a tensor that has less than half of the steps, or no coordinate with a gradient that moved,
    is left out of the window.

    It holds 8 bytes for each step of the window and each coordinate, and no more. The coordinates
    are chosen at the first step; parameters that join the optimizer later are not followed.

    Args:
        window: steps in a window.
        coordinates: the most that are followed in a tensor.
        budget: the most that are followed in all. With many tensors each gets fewer; with more
            tensors than this, a random choice of tensors gets one.
        seed: of the choice of coordinates.
    """

    def __init__(
        self, window: int = 256, coordinates: int = 64, budget: int = 4096, seed: int = 0
    ) -> None:
        _checks.whole("window", window, low=_SHORTEST)
        _checks.whole("coordinates", coordinates, low=1)
        _checks.whole("budget", budget, low=1)
        # Now, not after a window of steps.
        if importlib.util.find_spec("scipy") is None:
            raise ModuleNotFoundError("the lens needs scipy: pip install 'bandwise[study]'")
        self.window, self.coordinates, self.budget = window, coordinates, budget
        self._generator = torch.Generator().manual_seed(seed)
        self._sampled: dict[str, _Sampled] = {}
        self._devices: dict[str, torch.device] = {}
        self._gradients: dict[torch.device, Tensor] = {}
        self._updates: dict[torch.device, Tensor] = {}
        self._starts: dict[str, Tensor] = {}
        self._count = self._reported = self._step = 0

    def before(self, step: Step) -> None:
        if not self._sampled:
            self._follow(step.tensors, self._choose(step.tensors))
        self._starts, gradients = {}, {}
        for t in self._followed(step):
            if t.grad is not None:
                places = self._sampled[t.name].places
                gradient = _taken(t.grad, places)
                gradients[t.name] = gradient if t.grad_scale == 1 else gradient / t.grad_scale
                self._starts[t.name] = _taken(t.param, places)
        self._store(self._gradients, gradients)

    def after(self, step: Step) -> None:
        moved = [t for t in self._followed(step) if t.name in self._starts]
        updates = []
        if moved:
            rates = [float(t.group["lr"]) for t in moved]
            starts = [self._starts[t.name] for t in moved]
            shrink = [1 - lr * t.decay for lr, t in zip(rates, moved, strict=True)]
            ends = [_taken(t.param, self._sampled[t.name].places) for t in moved]
            updates = list(torch._foreach_sub(torch._foreach_mul(starts, shrink), ends))
            # With a learning rate of 0 they are NaN, which is what is known of them.
            torch._foreach_div_(updates, rates)
        names = [t.name for t in moved]
        self._store(self._updates, dict(zip(names, updates, strict=True)))
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
        gradients = {device: buffer.cpu()[order] for device, buffer in self._gradients.items()}
        updates = {device: buffer.cpu()[order] for device, buffer in self._updates.items()}

        segment = filled // 4
        series = {}
        for name, sampled in self._sampled.items():
            device = self._devices[name]
            g, u = gradients[device][:, sampled.columns], updates[device][:, sampled.columns]
            known = g.isfinite().all(1) & u.isfinite().all(1)
            if 2 * known.sum() >= filled:
                series[name] = g[known], u[known]
        rows = [self._row(name, response(g, u, segment)) for name, (g, u) in series.items()]
        rows += self._whole_model(list(series.values()), segment)
        return [row for row in rows if row["coordinates"]]

    def state_dict(self) -> dict[str, Any]:
        places = {name: sampled.places for name, sampled in self._sampled.items()}
        return {
            "window": self.window,
            "count": self._count,
            "reported": self._reported,
            "step": self._step,
            "places": places,
            "gradients": {name: self._column(self._gradients, name) for name in places},
            "updates": {name: self._column(self._updates, name) for name in places},
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
        for name in places:
            self._column(self._gradients, name).copy_(state["gradients"][name])
            self._column(self._updates, name).copy_(state["updates"][name])

    def _column(self, buffers: dict[torch.device, Tensor], name: str) -> Tensor:
        """What is held of one tensor, (window, coordinates)."""
        return buffers[self._devices[name]][:, self._sampled[name].columns]

    def _whole_model(self, series: list[tuple[Tensor, Tensor]], segment: int) -> list[Row]:
        """Coordinates of all tensors that have every step; of tensors, then, that count alike."""
        if not series:
            return []
        steps = max(len(g) for g, _ in series)
        series = [(g, u) for g, u in series if len(g) == steps]
        numbers = [torch.full(g.shape[1:], i) for i, (g, _) in enumerate(series)]
        gradient, update = (torch.cat(some, 1) for some in zip(*series, strict=True))
        return [self._row("all", response(gradient, update, segment, torch.cat(numbers)))]

    def _row(self, name: str, figures: dict[str, Any]) -> Row:
        return {"step": self._step, "quantity": "temporal", "tensor": name, **figures}

    def _followed(self, step: Step) -> list[Traced]:
        return [t for t in step.tensors if t.name in self._sampled]

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
        self._devices, self._sampled, self._gradients, self._updates = {}, {}, {}, {}
        widths: dict[torch.device, int] = defaultdict(int)
        for t in tensors:
            if t.name not in places:
                continue
            device, count = t.param.device, len(places[t.name])
            start, widths[device] = widths[device], widths[device] + count
            self._devices[t.name] = device
            self._sampled[t.name] = _Sampled(
                places[t.name].to(device),
                slice(start, widths[device]),
                torch.full((count,), math.nan, device=device),
            )
        for device, width in widths.items():
            self._gradients[device] = torch.full((self.window, width), math.nan, device=device)
            self._updates[device] = self._gradients[device].clone()

    def _store(self, buffers: dict[torch.device, Tensor], found: dict[str, Tensor]) -> None:
        parts = defaultdict(list)
        for name, sampled in self._sampled.items():
            parts[self._devices[name]].append(found.get(name, sampled.nothing))
        for device, values in parts.items():
            buffers[device][self._count % self.window] = torch.cat(values)


def _distinct(numel: int, count: int, generator: torch.Generator) -> Tensor:
    """Distinct places in a tensor, sorted, without a permutation of a large one."""
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
