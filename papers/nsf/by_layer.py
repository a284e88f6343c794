"""Optimizers with other settings for each kind of layer of a GPT.

The names of the parameters of ``bandwise.tasks.gpt.GPT`` give the kinds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from bandwise import NSF
from papers.nsf.stepping import Stepping

Named = Iterable[tuple[str, nn.Parameter]]
Kind = Literal["embedding", "attention", "feedforward", "other"]


def layer_kind(name: str) -> Kind:
    """The kind of layer of a parameter, from its name. Norms are ``"other"``."""
    parts = name.split(".")
    if parts[0] in ("token", "position"):
        return "embedding"
    if "attention" in parts:
        return "attention"
    if "expand" in parts or "project" in parts:
        return "feedforward"
    return "other"


def nsf_by_layer(
    named_parameters: Named,
    lr: float,
    embedding: float = 0.5,
    attention: float = 0.5,
    feedforward: float = 0.5,
    other: float = 0.5,
    betas: tuple[float, float] = (0.9, 0.99),
    weight_decay: float = 0.1,
) -> NSF:
    """NSF with an exponent for each kind of layer. The default, 1/2, is AdamW."""
    exponents = {
        "embedding": embedding,
        "attention": attention,
        "feedforward": feedforward,
        "other": other,
    }
    named = list(named_parameters)
    groups = [
        {"params": [param for name, param in named if layer_kind(name) == kind], "p": p}
        for kind, p in exponents.items()
    ]
    filled = [group for group in groups if group["params"]]
    return NSF(filled, lr=lr, betas=betas, weight_decay=weight_decay)


class MuonAdamW(Stepping):
    """``torch.optim.Muon`` for the hidden matrices, AdamW for all other parameters.

    Muon's step is scaled to the root mean square of AdamW's (``adjust_lr_fn="match_rms_adamw"`` in
    torch), so that one learning rate and one decay fit both.

    Args:
        named_parameters: a GPT's names and parameters.
        lr: the learning rate of both.
        momentum: Muon's momentum.
        betas: AdamW's decays of the moments.
        weight_decay: the decoupled decay of both.
    """

    def __init__(
        self,
        named_parameters: Named,
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.1,
    ) -> None:
        hidden: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, param in named_parameters:
            matrix = param.ndim == 2 and layer_kind(name) != "embedding"
            (hidden if matrix else others).append(param)
        self._both: list[Optimizer] = []
        if hidden:
            self._both.append(
                Muon(hidden, lr, weight_decay, momentum, adjust_lr_fn="match_rms_adamw")
            )
        if others:
            self._both.append(AdamW(others, lr, betas, weight_decay=weight_decay))
        super().__init__([optimizer.param_groups[0] for optimizer in self._both], {})

    def move(self) -> None:
        for optimizer, group in zip(self._both, self.param_groups, strict=True):
            # Loading a state_dict replaces this optimizer's groups and state.
            optimizer.param_groups, optimizer.state = [group], self.state
            optimizer.step()
