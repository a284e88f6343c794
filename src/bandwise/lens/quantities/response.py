"""The response of an optimizer to slow and to fast gradients, from series of both.

A series is a coordinate of a tensor over a window of steps: its gradient g_t, as the optimizer is
given it, and its update per unit of learning rate without decoupled weight decay,

    u_t = ((1 - c_t) θ_t - θ_(t+1)) / lr_t,

with c_t the share that the decay takes (``bandwise.lens.decay``). Coupled decay is part of the
update. Plain SGD has u = g. Frequencies are in cycles per step, from 0 to 1/2. The bands low, mid
and high are thirds of that range, so white noise has a third of its power in each. The mean of a
series is its lowest frequency and is not removed.

Two effects are measured apart. Momentum acts *within* a coordinate: it passes slow changes.
Adaptivity acts *across* coordinates: it gives some of them a longer step than others.

With Welch's spectra of coordinate k, Pᵍ_k(f) of g and Pᵘ_k(f) of u, the model

    ½ log(Pᵘ_k(f) / Pᵍ_k(f)) ≈ log a_k + log G(f)

is fitted by least squares, and the median of a is 1. A coordinate and a frequency have the weight
of the share of the coordinate's gradient power that lies at f. Where the gradient has no power, the
update's power comes from elsewhere, and the weight is 0.

**Within**: the gain G. SGD has G = 1; momentum has G = |1 / (1 - β exp(-2πif))|.

**Across**: log a against the log of the coordinate's sign-change rate (``rate_*``) and against the
log of the root mean square of its gradient (``size_*``). Each has a rank correlation and a
least-squares slope with its 95% interval. The interval takes coordinates for independent. SGD has
slopes of 0; Adam has a size slope of about -1 and NSF one of about -2p. With momentum, a series
that never changes sign gets up to 0.1 more: its power lies at f = 0, and Welch's windows smear the
gain there. For the whole model both are relative to the mean of the tensor: only coordinates of one
tensor are compared.

**Both**: R(f) = √(Σ_k Pᵘ_k(f) / Σ_k Pᵍ_k(f)), the response.
"""

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

_BANDS = ("low", "mid", "high")
_EDGES = (0.0, 1 / 6, 1 / 3, 1.0)

# A coordinate's gradient power below this share of its mean over frequencies is rounding.
_NO_POWER = 1e-10
_FEWEST = 8  # coordinates for a slope
_CURVE_POINTS = 8


def response(
    gradient: Tensor, update: Tensor, segment: int | None = None, tensor: Tensor | None = None
) -> dict[str, Any]:
    """The figures of this module's docstring, for series of coordinates.

    Args:
        gradient: (steps, coordinates), g.
        update: the same, u.
        segment: steps in one of Welch's windows; a quarter of the steps by default.
        tensor: (coordinates,) int64, for each coordinate the number of its tensor. If given, only
            coordinates of one tensor are compared.

    Returns:
        - ``steps``, and ``coordinates``, the number of those that had a gradient and moved.
          Without any, the figures are NaN.
        - Lists over ``frequency``: ``gain`` G, ``response`` R, ``gradient_power`` and
          ``update_power``, the mean share of a coordinate's power.
        - ``…_low``, ``…_mid``, ``…_high`` of each of these: for powers the sum over the band,
          otherwise the geometric mean.
        - ``rate_slope``, ``rate_slope_low``, ``rate_slope_high``, ``rate_correlation``, and the
          same with ``size``. ``None`` with fewer than 8 coordinates, or if all are alike.
        - The curve ``across_rate``, ``across_gain``: coordinates are grouped by their sign-change
          rate, and each group has the medians of its rates and of a. If ``tensor`` is given, a is
          relative to the mean of its tensor.
    """
    from scipy import signal

    gradient, update = gradient.double().cpu(), update.double().cpu()
    both = torch.stack([gradient, update]).numpy()
    welch = signal.welch(both, nperseg=segment or len(gradient) // 4, detrend=False, axis=1)
    frequency, (P_g, P_u) = (torch.from_numpy(part) for part in welch)
    # Judged by power, not by values: Welch's windows leave out a step or two at the ends.
    known = (P_g > _NO_POWER * P_g.mean(0)) & (P_u > 0)
    alive = known.any(0)
    gradient, P_g, P_u, known = (x[:, alive] for x in (gradient, P_g, P_u, known))
    members = (torch.zeros(len(alive)).long() if tensor is None else tensor.cpu())[alive]

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
    """The share of consecutive steps between which each column changes its sign.

    Pairs of steps with a zero do not count. One pair with half a change is added, so the rate is
    above 0 and has a logarithm. NaN where more than half of the pairs have a zero.
    """
    signs = series.sign()
    products = signs[1:] * signs[:-1]
    pairs = (products != 0).sum(0)
    rate = ((products < 0).sum(0) + 0.5) / (pairs + 1)
    return rate.where(2 * pairs >= len(products), math.nan)


def _within_and_across(P_g: Tensor, P_u: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """G(f) and log a, from the known powers. G is NaN where no coordinate has power."""
    gains = ((P_u / P_g).log() / 2).where(known, 0)
    shares = P_g.where(known, 0)
    shares = shares / shares.sum(0)
    means = (shares * gains).sum(0)

    # The normal equations without the coordinates' levels. They determine log G up to a constant.
    # In units of the root of the frequencies' weights they are well conditioned.
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
        for band, (low, high) in zip(_BANDS, pairwise(_EDGES), strict=True):
            values = curve[(frequency >= low) & (frequency < high)]
            total = values.sum() if name.endswith("power") else values.log().nanmean().exp()
            figures[f"{name}_{band}"] = total.item()
    return figures


def _centred(values: Tensor, members: Tensor) -> Tensor:
    """Values less the mean of the values with the same member number."""
    means = torch.bincount(members, values) / torch.bincount(members)
    return values - means[members]


def _slope(name: str, x: Tensor, y: Tensor, members: Tensor) -> dict[str, float | None]:
    from scipy import stats

    known = x.isfinite() & y.isfinite()
    x, y = _centred(x[known], members[known]), _centred(y[known], members[known])
    keys = [f"{name}_{figure}" for figure in ("slope", "slope_low", "slope_high", "correlation")]
    # Numbers that differ by rounding alone have no order.
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
