"""The spectrum of a gradient over rows and columns, and what SMI's filter does to it.

A gradient is laid out as SMI does it: a matrix of n x d, whose spectrum has the power
E_ij = |Ĝ_ij|². The radial frequency is r = √(f_i² + f_j²), each f from 0 to 1/2 cycles per row or
column. The bands are low (r < 1/6), mid (1/6 ≤ r < 1/3) and high (the rest, with the corners).
White noise has the share ``white_*`` of its energy in each. The spectrum depends on the order of
rows and columns: a layer with its units in another order has another spectrum.

A conjugate pair of coefficients is one real wave, and counts as one term of the entropy

    S = -Σ p log p / log N,  p = E / ΣE,

where N is the number of waves. S is 0 for a single wave, and near 1 for white noise.

The mask is the one that SMI uses at this step. With another optimizer it is the one that SMI would
use at its first step with a stated q. ``kept`` is the mask's share of the energy. ``overlap`` is
the Jaccard index of this mask and the one that was measured before: the coefficients in both over
the coefficients in either. Unrelated masks overlap by (1 - q)/(1 + q). With
``SMI(shard_work=True)`` no process has all of the mask, and both are ``None``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bandwise.lens.quantities.quantity import Row, Step, Traced
from bandwise.optim import _checks
from bandwise.optim._paths import quantile
from bandwise.optim._spectrum import Grid
from bandwise.optim.smi import SMI

BANDS = ("low", "mid", "high")
# The most places of a tensor at which masks are compared. It bounds their memory.
_PLACES = 1 << 16


def momentary_mask(gradient: Tensor, q: float) -> Tensor:
    """SMI's mask at a first step: True where a coefficient of the (half) spectrum is kept."""
    grid = Grid.of(gradient)
    M = grid.magnitude(grid.transform(grid.matrix(gradient.detach())))
    return grid.threshold(M, q) <= M


def mask_filter(mask: Tensor, alpha: float = 1.0) -> Callable[[Tensor], Tensor]:
    """SMI's filter with a given mask: alpha times the filtered gradient, 1 - alpha the gradient."""

    def filtered(gradient: Tensor) -> Tensor:
        grid = Grid.of(gradient)
        G = grid.matrix(gradient.detach())
        kept = grid.inverse(grid.transform(G) * mask)
        return G.lerp(kept, alpha).view(gradient.shape).to(gradient.dtype)

    return filtered


def filter_bias_variance(
    gradients: Iterable[Tensor],
    reference: Tensor,
    filter: Callable[[Tensor], Tensor],  # noqa: A002
) -> dict[str, float]:
    """What a filter F adds to the error that a small batch's gradient has as an estimate.

    With K gradients g_k of independent small batches and a reference r, the gradient of a
    batch that is large beside all of them:

        x_k      = F(g_k),  x̄ = Σ_k x_k / K
        variance = Σ_k ‖x_k - x̄‖² / (K - 1) / ‖r‖²
        bias²    = ‖x̄ - r‖² / ‖r‖² - variance / K

    The noise of the mean itself adds variance / K to its distance, so that term is taken off. The
    estimate of a filter without bias lies around 0, on either side. The sum of both is the expected
    squared error, relative to ‖r‖².

    Args:
        gradients: at least two, of one shape. They are taken one at a time.
        reference: of that shape.
        filter: of a gradient, such as ``mask_filter``'s.

    Returns:
        ``bias2`` and ``variance`` with the filter, ``bias2_unfiltered`` and
        ``variance_unfiltered`` of the gradients themselves, and ``bias2_added`` and
        ``variance_added``, the differences.
    """
    filtered, unfiltered = _Moments(), _Moments()
    for gradient in gradients:
        unfiltered.add(gradient)
        filtered.add(filter(gradient))
    if filtered.count < 2:
        raise ValueError(f"gradients must be two at least, got {filtered.count}")
    bias2, variance = filtered.against(reference)
    bias2_before, variance_before = unfiltered.against(reference)
    return {
        "bias2": bias2,
        "variance": variance,
        "bias2_unfiltered": bias2_before,
        "variance_unfiltered": variance_before,
        "bias2_added": bias2 - bias2_before,
        "variance_added": variance - variance_before,
    }


class _Moments:
    """Mean and squared deviations of tensors that come one by one (Welford's method)."""

    def __init__(self) -> None:
        self.count, self.mean, self.deviations = 0, torch.zeros(()), 0.0

    def add(self, x: Tensor) -> None:
        x = x.detach().double()
        self.count += 1
        apart = x - self.mean.to(x.device)
        self.mean = self.mean.to(x.device) + apart / self.count
        self.deviations += (apart * (x - self.mean)).sum().item()

    def against(self, reference: Tensor) -> tuple[float, float]:
        unit = reference.double().square().sum().item()
        variance = self.deviations / (self.count - 1) / unit
        distance = (self.mean - reference.double()).square().sum().item() / unit
        return distance - variance / self.count, variance


def spectral_figures(gradient: Tensor, mask: Tensor | None = None) -> dict[str, float]:
    """The spectral figures of one gradient.

    Args:
        gradient: of one dimension or more.
        mask: of its (half) spectrum, True where a coefficient is kept.

    Returns:
        ``energy``, the sum of its squares; ``low``, ``mid`` and ``high``, the bands' shares of it;
        ``white_low`` and so on, those of white noise; ``entropy``; with a mask ``kept``.
    """
    grid = Grid.of(gradient)
    return _figures(grid.transform(grid.matrix(gradient.detach())).abs(), mask, grid)


def energies(M: Tensor, grid: Grid) -> Tensor:
    """The energy that each coefficient of a (half) spectrum stands for in the full one.

    The unit is the square of the largest magnitude, so that no square overflows or underflows.
    """
    return (M / M.amax()).square_() * grid.multiplicity(M.device)


def _figures(M: Tensor, mask: Tensor | None, grid: Grid) -> dict[str, float]:
    """``spectral_figures`` of a matrix with known magnitudes."""
    counts, band = grid.multiplicity(M.device), grid.bands(M.device)
    E = energies(M, grid)
    total = E.sum()
    figures = [M.amax(), total]
    figures += [E[band == i].sum() / total for i in range(3)]
    figures += [counts[band == i].sum() / counts.sum() for i in range(3)]
    waves = (counts > 0).sum().clamp(min=2)
    figures += [torch.special.entr(E / total).sum() / waves.log()]
    names = ["low", "mid", "high", "white_low", "white_mid", "white_high", "entropy"]
    if mask is not None:
        figures += [(E * mask).sum() / total]
        names += ["kept"]
    largest, relative, *others = torch.stack(figures).tolist()
    energy = largest**2 * relative / (grid.n * grid.d)
    return {"energy": energy, **dict(zip(names, others, strict=True))}


class Spatial:
    """Measures the spectrum of every gradient of two dimensions or more, at the steps that are due.

    In the row of the whole model, ``energy`` is the sum over the tensors, and its shares are shares
    of that sum. ``white_*``, ``entropy``, ``q`` and ``overlap`` are means, weighed by the number of
    coefficients.

    It measures one tensor after another, and keeps 64 KiB of mask at most for each.

    Args:
        q: of the mask, for tensors that SMI does not filter.
        budget: the most tensors that are measured. Of more tensors, a random choice is measured,
            the same at every step.
        seed: of the choice.
    """

    def __init__(self, q: float = 0.25, budget: int = 256, seed: int = 0) -> None:
        _checks.number("q", q, low=0, high=1)
        _checks.whole("budget", budget, low=1)
        self.q, self.budget = q, budget
        self._generator = torch.Generator().manual_seed(seed)
        self._chosen: set[str] | None = None
        self._masks: dict[str, Tensor] = {}
        self._rows: list[Row] = []

    def before(self, step: Step) -> None:
        if not step.due:
            return
        if self._chosen is None:
            names = [t.name for t in step.tensors if t.param.ndim >= 2 and t.param.numel() > 1]
            order = torch.randperm(len(names), generator=self._generator)
            self._chosen = {names[i] for i in order[: self.budget].tolist()}
        measured = []
        for t in step.tensors:
            if t.grad is not None and t.name in self._chosen:
                figures = self._measured(t, t.grad, step.optimizer)
                if figures is not None:
                    measured.append((t.grad.numel(), figures))
                    self._add(step, t.name, figures)
        if measured:
            self._add(step, "all", _whole_model(measured))

    def after(self, step: Step) -> None:
        pass

    def rows(self, closing: bool = False) -> list[Row]:
        rows, self._rows = self._rows, []
        return rows

    def state_dict(self) -> dict[str, Any]:
        chosen = None if self._chosen is None else sorted(self._chosen)
        return {"chosen": chosen, "masks": dict(self._masks)}

    def load_state_dict(self, state: dict[str, Any], tensors: Sequence[Traced]) -> None:
        self._chosen = None if state["chosen"] is None else set(state["chosen"])
        masks = state["masks"]
        self._masks = {t.name: masks[t.name].to(t.param.device) for t in tensors if t.name in masks}

    def _add(self, step: Step, name: str, figures: dict[str, float | None]) -> None:
        row = {"step": step.number, "quantity": "spatial", "tensor": name}
        self._rows.append({**row, **figures})

    def _measured(
        self, t: Traced, grad: Tensor, optimizer: Optimizer
    ) -> dict[str, float | None] | None:
        grid = Grid.of(grad, t.group.get("smi_layout", "matrix"))
        M = grid.magnitude(grid.transform(grid.matrix(grad)))
        peak = M.amax().item()
        if peak == 0 or not math.isfinite(peak):
            return None
        mask: Tensor | None
        if isinstance(optimizer, SMI) and optimizer.filters(t.group, t.param):
            mask, q = optimizer.coming_mask(t.group, t.param, M), t.group["smi_q"]
        else:
            mask, q = quantile.removed(grid, M, self.q) == 0, self.q
        figures: dict[str, float | None] = {**_figures(M, mask, grid)}
        figures.setdefault("kept", None)
        if t.grad_scale != 1:
            figures["energy"] = (figures["energy"] or 0.0) / t.grad_scale**2
        overlap = None if mask is None else self._overlap(t.name, mask, grid)
        return {**figures, "q": q, "overlap": overlap}

    def _overlap(self, name: str, mask: Tensor, grid: Grid) -> float | None:
        counts, sample = grid.multiplicity(mask.device).flatten(), mask.flatten()
        if len(sample) > _PLACES:
            # The same places every time, without keeping them.
            generator = torch.Generator().manual_seed(0)
            places = torch.randint(len(sample), (_PLACES,), generator=generator).to(sample.device)
            counts, sample = counts[places], sample[places]
        before = self._masks.get(name)
        self._masks[name] = sample.clone()
        if before is None:
            return None
        either = counts[sample | before].sum().item()
        return counts[sample & before].sum().item() / either if either else None


def _whole_model(measured: list[tuple[int, dict[str, float | None]]]) -> dict[str, float | None]:
    energies = [figures["energy"] for _, figures in measured]
    numels = [numel for numel, _ in measured]
    whole: dict[str, float | None] = {"energy": sum(energy or 0.0 for energy in energies)}
    for name in measured[0][1]:
        if name == "energy":
            continue
        weights = energies if name in (*BANDS, "kept") else numels
        terms = [
            (weight, figures[name])
            for weight, (_, figures) in zip(weights, measured, strict=True)
            if figures[name] is not None
        ]
        total = sum(weight or 0.0 for weight, _ in terms)
        mean = sum((weight or 0.0) * (value or 0.0) for weight, value in terms)
        whole[name] = mean / total if total else None
    return whole
