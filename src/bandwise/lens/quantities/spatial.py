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

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bandwise.lens.quantities.quantity import Quantity, Step, Traced, chosen
from bandwise.optim import _checks
from bandwise.optim._paths import quantile
from bandwise.optim._spectrum import Grid, Layout
from bandwise.optim.smi import SMI

BANDS = ("low", "mid", "high")
# The most places of a tensor at which masks are compared. It bounds their memory.
_PLACES = 1 << 16


def magnitudes(gradient: Tensor, layout: Layout = "matrix") -> tuple[Grid, Tensor]:
    """The grid of a gradient's (half) spectrum, and the magnitudes of its coefficients."""
    grid = Grid.of(gradient, layout)
    return grid, grid.magnitude(grid.transform(grid.matrix(gradient.detach())))


def momentary_mask(gradient: Tensor, q: float) -> Tensor:
    """SMI's mask at a first step: True where a coefficient of the (half) spectrum is kept."""
    grid, M = magnitudes(gradient)
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
        ``bias2`` and ``variance`` with the filter; of the gradients themselves, with
        ``_unfiltered`` behind the name; and with ``_added``, the differences.
    """
    r = reference.detach().double()
    # For the filtered and the unfiltered gradients: Σ (x_k - r), and Σ ‖x_k - r‖².
    total, squares = torch.zeros(2, 1, device=r.device), torch.zeros(2, device=r.device)
    count = 0
    for gradient in gradients:
        count += 1
        apart = (torch.stack([filter(gradient), gradient]).detach() - r).flatten(1)
        total, squares = total + apart, squares + apart.square().sum(1)
    if count < 2:
        raise ValueError(f"gradients must be two at least, got {count}")
    distance, unit = (total / count).square().sum(1), r.square().sum()
    variance = (squares - count * distance) / (count - 1)
    bias2 = distance - variance / count
    figures: dict[str, float] = {}
    for name, values in (("bias2", bias2 / unit), ("variance", variance / unit)):
        after, before = values.tolist()
        figures |= {name: after, f"{name}_unfiltered": before, f"{name}_added": after - before}
    return figures


def spectral_figures(gradient: Tensor, mask: Tensor | None = None) -> dict[str, float]:
    """The spectral figures of one gradient.

    Args:
        gradient: of one dimension or more.
        mask: of its (half) spectrum, True where a coefficient is kept.

    Returns:
        ``energy``, the sum of its squares; ``low``, ``mid`` and ``high``, the bands' shares of it;
        ``white_low`` and so on, those of white noise; ``entropy``; with a mask ``kept``.
    """
    grid, M = magnitudes(gradient)
    return _figures(M, mask, grid)


def energies(M: Tensor, grid: Grid) -> Tensor:
    """The energy that each coefficient of a (half) spectrum stands for in the full one.

    The unit is the square of the largest magnitude, so that no square overflows or underflows.
    """
    return (M / M.amax()).square_() * grid.multiplicity(M.device)


def _figures(M: Tensor, mask: Tensor | None, grid: Grid) -> dict[str, float]:
    """``spectral_figures`` of a matrix with known magnitudes."""
    counts, band = grid.multiplicity(M.device), grid.bands(M.device)
    E = energies(M, grid)
    total, waves = E.sum(), (counts > 0).sum().clamp(min=2)
    figures = {"energy": total}
    for i, name in enumerate(BANDS):
        figures[name] = E[band == i].sum() / total
        figures[f"white_{name}"] = counts[band == i].sum() / counts.sum()
    figures["entropy"] = torch.special.entr(E / total).sum() / waves.log()
    if mask is not None:
        figures["kept"] = (E * mask).sum() / total
    # A device is waited for once.
    peak, *values = torch.stack([M.amax(), *figures.values()]).tolist()
    found = dict(zip(figures, values, strict=True))
    return found | {"energy": found["energy"] * peak**2 / (grid.n * grid.d)}


class Spatial(Quantity):
    """Measures the spectrum of every gradient of two dimensions or more, at the steps that are due.

    In the row of the whole model, ``energy`` is the sum over the tensors, and its shares are shares
    of that sum. The other figures are means, weighed by the number of coefficients. At most 64 KiB
    of a tensor's mask are kept.

    Args:
        q: of the mask, for tensors that SMI does not filter.
        budget: the most tensors that are measured. Of more tensors, a random choice is measured,
            the same at every step.
        seed: of the choice.
    """

    name = "spatial"

    def __init__(self, q: float = 0.25, budget: int = 256, seed: int = 0) -> None:
        _checks.number("q", q, low=0, high=1)
        _checks.whole("budget", budget, low=1)
        self.q, self.budget = q, budget
        self._generator = torch.Generator().manual_seed(seed)
        self._chosen: list[str] | None = None
        self._masks: dict[str, Tensor] = {}
        self._rows: dict[str, dict[str, Any]] = {}

    def before(self, step: Step) -> None:
        self._rows = {}
        if not step.due:
            return
        if self._chosen is None:
            names = [t.name for t in step.tensors if t.param.ndim >= 2 and t.param.numel() > 1]
            self._chosen = chosen(dict.fromkeys(names, 1), self.budget, self._generator)
        numels = []
        for t in step.tensors:
            if t.grad is not None and t.name in self._chosen:
                figures = self._figures(t, t.grad, step.optimizer)
                if figures:
                    self._rows[t.name] = figures
                    numels.append(t.grad.numel())
        if numels:
            self._rows["all"] = _whole_model(list(self._rows.values()), numels)

    def rows(self, closing: bool = False) -> dict[str, dict[str, Any]]:
        # At the end, those of the last step are written, and those of one that failed do not count.
        return {} if closing else self._rows

    def state_dict(self) -> dict[str, Any]:
        return {"chosen": self._chosen, "masks": dict(self._masks)}

    def load_state_dict(self, state: dict[str, Any], tensors: Sequence[Traced]) -> None:
        self._chosen, masks = state["chosen"], state["masks"]
        self._masks = {t.name: masks[t.name].to(t.param.device) for t in tensors if t.name in masks}

    def _figures(self, t: Traced, grad: Tensor, optimizer: Optimizer) -> dict[str, float]:
        """The figures of one tensor; none where there is no finite gradient."""
        grid, M = magnitudes(grad, t.group.get("smi_layout", "matrix"))
        if not 0 < M.amax().item() < math.inf:
            return {}
        mask: Tensor | None
        if isinstance(optimizer, SMI) and optimizer.filters(t.group, t.param):
            mask, q = optimizer.coming_mask(t.group, t.param, M), t.group["smi_q"]
        else:
            mask, q = quantile.removed(grid, M, self.q) == 0, self.q
        figures = _figures(M, mask, grid)
        figures["energy"] /= t.grad_scale**2
        overlap = math.nan if mask is None else self._overlap(t.name, mask, grid)
        return {"kept": math.nan, **figures, "q": q, "overlap": overlap}

    def _overlap(self, name: str, mask: Tensor, grid: Grid) -> float:
        counts, sample = grid.multiplicity(mask.device).flatten(), mask.flatten()
        if len(sample) > _PLACES:
            # The same places every time, without keeping them.
            generator = torch.Generator().manual_seed(0)
            places = torch.randint(len(sample), (_PLACES,), generator=generator).to(sample.device)
            counts, sample = counts[places], sample[places]
        before = self._masks.get(name)
        self._masks[name] = sample.clone()
        if before is None:
            return math.nan
        # NaN where both masks are empty.
        return (counts[sample & before].sum() / counts[sample | before].sum()).item()


def _whole_model(tensors: list[dict[str, float]], numels: list[int]) -> dict[str, float]:
    energies = [figures["energy"] for figures in tensors]
    whole = {}
    for name in tensors[0]:
        values = torch.tensor([figures[name] for figures in tensors], dtype=torch.float64)
        weights = values.new_tensor(energies if name in (*BANDS, "kept") else numels)
        known = ~values.isnan()
        whole[name] = ((weights * values)[known].sum() / weights[known].sum()).item()
    return {**whole, "energy": sum(energies)}
