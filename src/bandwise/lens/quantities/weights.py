"""The quantity ``weights``, and its figures: Tables 2 and 4 of the SMI paper.

The paper names the figures and does not define them. The definitions here are ours, so the paper's
values are no reference for them. Table 4's "weight decay impact" is 1 for the baseline by
construction. The paper does not say how it is measured: it has no figure here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bandwise.lens.quantities.quantity import Row, Step, Traced
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
      values. The paper does not say whether it subtracts 3, as Fisher's does. We read its baseline
      of 3.2 as near normal.
    - ``effective_parameter_ratio`` (Table 4): exp(-Σ pᵢ ln pᵢ) / N, with pᵢ = |wᵢ| / Σ|w|. It is
      the effective rank's formula on magnitudes: 1 if all magnitudes are equal, k / N if k equal
      weights are not zero, 0.753 for normal values. It needs no threshold. The usual participation
      ratio, (Σw²)² / (N Σw⁴), is 1 / kurtosis for weights of mean zero, which Table 4 has already.

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


def model_figures(model: nn.Module) -> dict[str, float]:
    """The rows of Tables 2 and 4 for a model, from the ``weight_figures`` of its layers.

    A layer is a parameter of two or more dimensions. A shared parameter is one layer. Each layer
    counts the same, whatever its size.

    - ``average_spectral_norm`` and ``spectral_norm_variance``: the mean over layers, and the mean
      squared distance from it.
    - ``condition_number``, ``effective_rank_ratio``, ``parameter_magnitude_variance``,
      ``kurtosis``, ``effective_parameter_ratio``: means over layers.
    - ``median_condition_number``: one nearly singular layer can decide the mean; it cannot decide
      the median.

    Raises:
        ValueError: the model has no layer, or one that is not finite.
    """
    layers = []
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            try:
                layers.append(weight_figures(parameter))
            except ValueError as error:
                raise ValueError(f"model's parameter {name}: {error}") from error
    if not layers:
        raise ValueError("model must have a parameter of two or more dimensions, got none")
    of = {figure: [layer[figure] for layer in layers] for figure in layers[0]}
    return {
        "average_spectral_norm": statistics.fmean(of["spectral_norm"]),
        "spectral_norm_variance": statistics.pvariance(of["spectral_norm"]),
        "condition_number": statistics.fmean(of["condition_number"]),
        "median_condition_number": statistics.median(of["condition_number"]),
        "effective_rank_ratio": statistics.fmean(of["effective_rank_ratio"]),
        "parameter_magnitude_variance": statistics.fmean(of["magnitude_variance"]),
        "kurtosis": statistics.fmean(of["kurtosis"]),
        "effective_parameter_ratio": statistics.fmean(of["effective_parameter_ratio"]),
    }


class Weights:
    """Measures ``weight_figures`` of every parameter of two or more dimensions, after the step.

    The row of the whole model has their means; every tensor counts the same. Singular values are
    costly and change slowly, so the rate is lower than that of other quantities, and there is a
    budget. The weights at the end of the recording are measured, too.

    Args:
        every: they are measured at the first of the steps that are due, and at every so many of
            them. With the lens's own ``every=50`` that is once in 1,000 steps.
        budget: multiplications, counted as n d min(n, d) for a matrix of n x d. A random choice of
            matrices within the budget is measured, the same every time. The default is four times
            what the paper's GPT needs, and takes seconds of one processor.
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
            # Weights that are not finite have no figures.
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
        # The step itself would keep its gradients alive.
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
        # States of older versions have neither.
        self._step, self._measured = state.get("step", 0), state.get("measured", 0)
        self._chosen = None if state["chosen"] is None else set(state["chosen"])
        self._follow(tensors)


def _effective_share(values: Tensor) -> Tensor:
    """exp(entropy) of values ≥ 0, as shares of their sum, divided by their number."""
    shares = values / values.sum()
    effective: Tensor = torch.special.entr(shares).sum().exp()
    return effective / len(values)


def _cost(t: Traced) -> int:
    """The multiplications for a tensor; 0 if it has no figures."""
    if t.param.ndim < 2 or t.param.is_complex():
        return 0
    shape = matrix_shape(t.param.shape) if t.param.numel() else (0, 0)
    return math.prod(shape) * min(shape)
