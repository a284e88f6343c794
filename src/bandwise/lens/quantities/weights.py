"""The quantity ``weights``, and its figures: Tables 2 and 4 of the SMI paper.

The paper names the figures and does not define them. The definitions here are ours, so the paper's
values are no reference for them. Table 4's "weight decay impact" is 1 for the baseline by
construction. The paper does not say how it is measured: it has no figure here.
"""

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bandwise.lens.quantities.quantity import Quantity, Step, Traced, chosen
from bandwise.optim import _checks
from bandwise.optim._spectrum import matrix_shape


def weight_figures(matrix: Tensor) -> dict[str, float]:
    """Figures of one weight tensor, as the n x d matrix W that SMI makes of it.

    W has ``shape[0]`` rows; a vector is one row. With W's singular values σ₁ ≥ σ₂ ≥ …, and w
    running over its N = nd values:

    - ``spectral_norm`` (Table 2): σ₁, in units of the weights.
    - ``condition_number`` (Table 2): σ₁ / σᵣ, with σᵣ the smallest singular value above
      σ₁ · max(n, d) · eps, the cut of ``numpy.linalg.matrix_rank``. ``eps`` is that of the
      weights' own type, or float32's for narrower types.
    - ``effective_rank_ratio`` (Table 2): exp(-Σ pᵢ ln pᵢ) / min(n, d), with pᵢ = σᵢ / Σσ. It is
      the effective rank of Roy and Vetterli (2007) over the largest possible: 1 if all σ are
      equal, 1 / min(n, d) for rank one.
    - ``magnitude_variance`` (Table 4): mean(|w|²) - mean(|w|)², in squared units of the weights.
    - ``kurtosis`` (Table 4): mean((w - w̄)⁴) / mean((w - w̄)²)², Pearson's, which is 3 for normal
      values. The paper does not say whether it subtracts 3, as Fisher's does.
    - ``effective_parameter_ratio`` (Table 4): exp(-Σ pᵢ ln pᵢ) / N, with pᵢ = |wᵢ| / Σ|w|. It is
      the effective rank's formula on magnitudes: 1 if all magnitudes are equal, k / N if k equal
      weights are not zero, 0.753 for normal values.

    A figure is NaN where its formula divides zero by zero. Weights that are all zero are a case.

    Raises:
        ValueError: the tensor is a scalar, is empty, is complex, or is not finite.
    """
    if matrix.ndim == 0 or matrix.numel() == 0 or matrix.is_complex():
        raise ValueError(
            "matrix must be a real tensor with at least one dimension and one value, "
            f"got {matrix.dtype} of shape {tuple(matrix.shape)}"
        )
    if not matrix.isfinite().all():
        raise ValueError("matrix must be finite, got infinite or NaN values")
    eps = torch.finfo(torch.promote_types(matrix.dtype, torch.float32)).eps
    w = matrix.detach().cpu().double().reshape(matrix_shape(matrix.shape))
    sigma = torch.linalg.svdvals(w)
    kept = sigma[sigma > sigma[0] * max(w.shape) * eps]
    magnitudes, centred = w.abs(), w - w.mean()
    figures = {
        "spectral_norm": sigma[0],
        "condition_number": kept[0] / kept[-1] if len(kept) else torch.tensor(torch.nan),
        "effective_rank_ratio": _effective_share(sigma),
        "magnitude_variance": magnitudes.var(correction=0),
        "kurtosis": centred.pow(4).mean() / centred.square().mean().square(),
        "effective_parameter_ratio": _effective_share(magnitudes.flatten()),
    }
    return {name: figure.item() for name, figure in figures.items()}


class Weights(Quantity):
    """Measures ``weight_figures`` of every parameter of two or more dimensions, after the step.

    The row of the whole model has their means; every tensor counts the same. Singular values are
    costly and change slowly, so they are measured rarely, and at the end.

    Args:
        every: they are measured at the first of the steps that are due, and at every so many of
            them. With the lens's own ``every=50`` that is once in 1,000 steps.
        budget: multiplications, counted as n d min(n, d) for a matrix of n x d. A random choice of
            matrices within the budget is measured, the same every time. The default is four times
            what the paper's GPT needs.
        seed: of the choice.
    """

    name = "weights"

    def __init__(self, every: int = 20, budget: int = 1 << 34, seed: int = 0) -> None:
        _checks.whole("every", every, low=1)
        _checks.whole("budget", budget, low=1)
        self.every, self.budget = every, budget
        self._generator = torch.Generator().manual_seed(seed)
        # The parameters that are measured; None before the first step.
        self._params: dict[str, Tensor] | None = None
        # The steps that were due; whether the last is to be measured; whether weights have moved
        # since they were measured.
        self._due, self._now, self._moved = 0, False, False

    def after(self, step: Step) -> None:
        if self._params is None:
            costs = {
                t.name: t.param.numel() * min(matrix_shape(t.param.shape))
                for t in step.tensors
                if t.param.ndim >= 2 and t.param.numel() and not t.param.is_complex()
            }
            self._follow(step.tensors, chosen(costs, self.budget, self._generator))
        self._moved = True
        if step.due:
            self._now = self._due % self.every == 0
            self._due += 1

    def rows(self, closing: bool = False) -> dict[str, dict[str, Any]]:
        if not self._now and not (closing and self._moved):
            return {}
        self._now = self._moved = False
        figures = {
            name: weight_figures(param)
            for name, param in (self._params or {}).items()
            # Weights that are not finite have no figures.
            if param.isfinite().all()
        }
        if figures:
            names = next(iter(figures.values()))
            figures["all"] = {
                name: statistics.fmean(some[name] for some in figures.values()) for name in names
            }
        return figures

    def state_dict(self) -> dict[str, Any]:
        names = None if self._params is None else list(self._params)
        return {"due": self._due, "moved": self._moved, "chosen": names}

    def load_state_dict(self, state: dict[str, Any], tensors: Sequence[Traced]) -> None:
        self._due, self._moved = state["due"], state["moved"]
        if state["chosen"] is not None:
            self._follow(tensors, state["chosen"])

    def _follow(self, tensors: Sequence[Traced], names: Sequence[str]) -> None:
        self._params = {t.name: t.param for t in tensors if t.name in names}


def _effective_share(values: Tensor) -> Tensor:
    """exp(entropy) of values ≥ 0, as shares of their sum, divided by their number."""
    shares = values / values.sum()
    effective: Tensor = torch.special.entr(shares).sum().exp()
    return effective / len(values)
