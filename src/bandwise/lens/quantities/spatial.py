"""The spectrum of a gradient over rows and columns, and what SMI's filter does to it.

A gradient is laid out as SMI does it: a matrix of n x d, whose spectrum has the power
E_ij = |Ĝ_ij|². The radial frequency is r = √(f_i² + f_j²), each f from 0 to 1/2 cycles per row or
column. Bands: low is r < 1/6, mid 1/6 ≤ r < 1/3, high the rest, corners included; white noise has
in each the share ``white_*`` of its energy. The spectrum depends on the order of rows and columns:
with a layer's units in another order it is another one.

A conjugate pair of coefficients is one real wave, and counts as one term of the entropy

    S = -Σ p log p / log N,  p = E / ΣE,

N being the number of waves: 0 for a single wave, near 1 for white noise.

The mask is the one that SMI uses at this step. With another optimizer it is the one that SMI would
use at its first step, made of this gradient's magnitudes alone, at a stated q. ``kept`` is the
mask's share of the energy. ``overlap`` is the Jaccard index of this mask and the one measured
before: the coefficients in both over the coefficients in either. Masks that have nothing to do with
each other overlap by (1 - q)/(1 + q). With ``SMI(shard_work=True)`` no process has all of the mask:
both are ``None``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from bandwise.lens.quantities.quantity import Row, Step, Traced
from bandwise.optim import _checks
from bandwise.optim import _spectrum as spectrum

BANDS = ("low", "mid", "high")
# Places in a tensor at which masks are compared, at most: it bounds their memory.
_PLACES = 1 << 16


def momentary_mask(gradient: Tensor, q: float) -> Tensor:
    """SMI's mask at a first step: True where a coefficient of the (half) spectrum is kept."""
    G = spectrum.matrix(gradient.detach())
    M = spectrum.magnitude(spectrum.transform(G), G)
    return spectrum.threshold(M, q, G) <= M


def mask_filter(mask: Tensor, alpha: float = 1.0) -> Callable[[Tensor], Tensor]:
    """SMI's filter with a given mask: alpha times the filtered gradient, 1 - alpha the gradient."""

    def filtered(gradient: Tensor) -> Tensor:
        G = spectrum.matrix(gradient.detach())
        kept = spectrum.inverse(spectrum.transform(G) * mask, G)
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

    The last term is what the mean's own noise adds to its distance; without bias the estimate lies
    around 0, on either side. The expected squared error, relative to ‖r‖², is the sum of
    both.

    Args:
        gradients: at least two, of one shape; taken one at a time.
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
    """The figures of one gradient.

    Args:
        gradient: of one dimension or more.
        mask: of its (half) spectrum, True where a coefficient is kept.

    Returns:
        ``energy``, the sum of its squares; ``low``, ``mid`` and ``high``, the bands' shares of it;
        ``white_low`` and so on, those of white noise; ``entropy``; with a mask ``kept``.
    """
    G = spectrum.matrix(gradient.detach())
    return _figures(spectrum.transform(G).abs(), mask, G)


def coming_mask(
    M: Tensor, G: Tensor, group: dict[str, Any], state: dict[str, Any]
) -> Tensor | None:
    """The mask that SMI will use in its coming step, from a gradient's magnitudes.

    ``None`` where other processes hold parts of the history: all processes would have to take part
    in asking for them.
    """
    if hasattr(state.get("smi_history"), "device_mesh"):
        return None
    if "smi_mask" in state and group["smi_step"] % group["smi_refresh_every"]:
        mask: Tensor = state["smi_mask"]
        return mask
    H = M
    if "smi_history" in state and state["smi_history"][0, 0] >= 0:
        H = state["smi_history"].to(M.dtype).lerp(M, 1 - group["smi_beta"])
    return spectrum.removed(H, group["smi_q"], G) == 0


def energies(M: Tensor, G: Tensor) -> Tensor:
    """What each coefficient of a gradient's (half) spectrum adds to the energy of the full one.

    In units of the largest magnitude's square: squares must not leave the range of their dtype.
    """
    return (M / M.amax()).square_() * _multiplicity(G)


def _figures(M: Tensor, mask: Tensor | None, G: Tensor) -> dict[str, float]:
    """``spectral_figures`` of a matrix whose magnitudes are at hand."""
    counts, band = _multiplicity(G), _band(G)
    E = energies(M, G)
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
    energy = largest**2 * relative / G.numel()
    return {"energy": energy, **dict(zip(names, others, strict=True))}


def _multiplicity(G: Tensor) -> Tensor:
    """How many coefficients of the full spectrum each of the half spectrum stands for.

    Where a half spectrum holds both of a pair, the first stands for both and the second for none.
    """
    n, d = G.shape
    rows, columns = spectrum.spectrum_shape(G.shape, G.is_complex())
    counts = torch.ones(rows, columns, device=G.device)
    if not G.is_complex():
        counts *= 2
        own = torch.full((n,), 2.0)
        own[0] = 1
        own[n // 2 + 1 :] = 0
        if n % 2 == 0:
            own[n // 2] = 1
        counts[:, 0] = own.to(G.device)
        if d % 2 == 0:
            counts[:, d // 2] = own.to(G.device)
    return counts


def _band(G: Tensor) -> Tensor:
    """0, 1 or 2 for each coefficient of the (half) spectrum."""
    n, d = G.shape
    across = torch.fft.fftfreq(d) if G.is_complex() else torch.fft.rfftfreq(d)
    r2 = torch.fft.fftfreq(n).square()[:, None].to(G.device) + across.square().to(G.device)
    # Frequencies of just 1/6 and 1/3 belong to the band above them, however they are rounded.
    return torch.bucketize(r2, r2.new_tensor([1 / 36, 1 / 9]) - 1e-6)


class Spatial:
    """Measures the spectrum of every gradient of two dimensions or more, at the steps that are due.

    The row of the whole model has sums over the tensors for ``energy`` and all shares of it, and
    means weighed by the number of coefficients for ``white_*``, ``entropy``, ``q`` and ``overlap``.

    It works through one tensor at a time, and keeps 64 KiB of mask at most for each.

    Args:
        q: of the mask, for tensors that are not filtered by an SMI.
        budget: the most tensors that are measured; of more, a random choice, the same every time.
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
                figures = self._measured(t, t.grad)
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

    def _measured(self, t: Traced, grad: Tensor) -> dict[str, float | None] | None:
        G = spectrum.matrix(grad)
        M = spectrum.magnitude(spectrum.transform(G), G)
        peak = M.amax().item()
        if peak == 0 or not math.isfinite(peak):
            return None
        mask, q = self._mask(t, M, G)
        figures: dict[str, float | None] = {**_figures(M, mask, G)}
        figures.setdefault("kept", None)
        if t.grad_scale != 1:
            figures["energy"] = (figures["energy"] or 0.0) / t.grad_scale**2
        overlap = None if mask is None else self._overlap(t.name, mask, G)
        return {**figures, "q": q, "overlap": overlap}

    def _mask(self, t: Traced, M: Tensor, G: Tensor) -> tuple[Tensor | None, float]:
        """The mask of this step, made as SMI will make it, and its q."""
        group, state = t.group, t.state
        if not group.get("smi", False) or t.param.ndim < group["smi_min_ndim"]:
            return spectrum.removed(M, self.q, G) == 0, self.q
        return coming_mask(M, G, group, state), group["smi_q"]

    def _overlap(self, name: str, mask: Tensor, G: Tensor) -> float | None:
        counts, sample = _multiplicity(G).flatten(), mask.flatten()
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
