"""NSF with one exponent for each part of d: between rows, between columns, and the rest.

It measures the effect of an exponent on each part. Within a matrix the logarithm of d is split as
in a two-way analysis of variance,

    log d_ij = rows_i + columns_j + rest_ij.

A row is an output of the layer, or a token of an embedding. A column is an input.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from papers.nsf.stepping import Stepping, moments


class FactoredNSF(Stepping):
    """NSF with scale "adam" and one exponent for each part of d.

    With equal exponents it equals NSF. With all exponents at 1/2 it equals AdamW. A tensor that is
    not a matrix has only a rest.

    Args:
        params: parameters or groups.
        lr: the learning rate.
        rows: the exponent of the mean over a row.
        columns: the exponent of the mean over a column minus the mean over the matrix.
        rest: the exponent of the rest.
        betas: the decays of the moments.
        eps: added to the root of the second moment.
        weight_decay: the decoupled decay.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        rows: float = 0.5,
        columns: float = 0.5,
        rest: float = 0.5,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        defaults = {
            "lr": lr,
            "exponents": (rows, columns, rest),
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    def move(self) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    _update(param, param.grad, self.state[param], group)


def _update(param: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    m, v = moments(state, grad, group["betas"])
    d = v.sqrt() + group["eps"]

    adam = u = m / d
    for p, part in zip(group["exponents"], split(d.log()), strict=True):
        u = u * ((1 - 2 * p) * part).exp()
    length = u.norm()
    scale = torch.where(length > 0, adam.norm() / length, 0)
    param.mul_(1 - group["lr"] * group["weight_decay"]).sub_(group["lr"] * scale * u)


def split(log: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The row means, the column means of the remainder, and the rest. Their sum is the input."""
    if log.ndim != 2:
        return torch.zeros_like(log), torch.zeros_like(log), log
    rows = log.mean(1, keepdim=True)
    columns = log.mean(0, keepdim=True) - log.mean()
    return rows, columns, log - rows - columns
