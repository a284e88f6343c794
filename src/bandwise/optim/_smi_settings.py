"""SMI's settings: their names in a parameter group, their checks, and the paper's presets."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias, get_args

import torch

from bandwise.optim import _checks, schedules
from bandwise.optim._spectrum import Layout
from bandwise.optim.schedules import Cosine, Linear, Schedule

Group: TypeAlias = dict[str, Any]

# What section 3.6 advises, as differences from the defaults, which are Algorithm 1's inputs.
PRESETS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "adam": {"beta": 0.995},
    "sgd": {"beta": 0.9, "q": 0.3, "alpha": Linear(0.1, 0.4)},
    "lion": {"q": 0.4, "alpha": Linear(0.1, 0.3)},
    "noisy": {"q": 0.5},
    "stable-tasks": {"q": 0.15},
    "stable-gradients": {"beta": 0.999},
    "dynamic": {"beta": 0.95},
    "conservative": {"alpha": Linear(0.1, 0.3)},
    "aggressive": {"alpha": Cosine(0.1, 0.7)},
}


class Settings(NamedTuple):
    """The arguments of SMI that may differ by group. There their names begin with ``smi_``."""

    total_steps: int | None
    alpha: float | Schedule
    beta: float
    q: float
    layout: Layout
    min_ndim: int
    history_dtype: torch.dtype | None
    refresh_every: int
    foreach: bool | None
    fused: bool | None

    @classmethod
    def of(cls, group: Group) -> Settings:
        """The settings that stand in a group."""
        if "smi_step" not in group:
            raise ValueError(
                "a parameter group has no settings of SMI: add groups to the SMI, not to its "
                f"base; it has {', '.join(map(str, group))}"
            )
        return cls(*[group[key] for key in KEYS])

    def in_group(self) -> Group:
        """The settings as they stand in a group."""
        return dict(zip(KEYS, self, strict=True))

    def check(self) -> None:
        """Raise TypeError or ValueError unless all are of the right types and ranges."""
        schedules.check("alpha", self.alpha, self.total_steps, low=0, high=1)
        _checks.number("beta", self.beta, low=0, below=1)
        _checks.number("q", self.q, low=0, high=1)
        _checks.one_of("layout", self.layout, get_args(Layout))
        _checks.whole("min_ndim", self.min_ndim, low=0)
        _checks.whole("refresh_every", self.refresh_every, low=1)
        _checks.path(self.foreach, self.fused)
        dtype = self.history_dtype
        if dtype is not None and not isinstance(dtype, torch.dtype):
            raise TypeError(f"history_dtype must be a torch.dtype or None, got {dtype!r}")
        if dtype is not None and not dtype.is_floating_point:
            raise ValueError(f"history_dtype must be a floating dtype, got {dtype}")


KEYS = tuple(f"smi_{name}" for name in Settings._fields)


def check_group(group: Group) -> None:
    """Raise unless a complete group's SMI settings are of the right names, types and ranges."""
    known = (*KEYS, "smi_step")
    unknown = [key for key in group if str(key).startswith("smi_") and key not in known]
    if unknown:
        raise ValueError(f"a group's settings must be among {', '.join(known)}; got {unknown}")
    _checks.flag("smi", group["smi"])
    Settings.of(group).check()


def completed(group: Group, defaults: Group, known: Group) -> Group:
    """A group with all settings, checked. ``known`` are the base's own settings."""
    complete = {**defaults, **group}
    check_group(complete)
    _warn_of_misnamed(complete, known)
    return complete


def add_later_settings(groups: list[Group]) -> None:
    """Add what the groups of older versions lack, with the value that has their meaning."""
    for group in groups:
        group.setdefault("smi_fused", None)
        group.setdefault("smi_layout", "matrix")


def _warn_of_misnamed(group: Group, known: Group) -> None:
    """Warn of settings without their prefix, unless they are settings of the base."""
    # None asks for nothing. Optimizers that copy another's groups, such as SAM, have such entries.
    misnamed = [
        name for name in Settings._fields if group.get(name) is not None and name not in known
    ]
    if misnamed:
        _checks.warn(
            f"a parameter group's {', '.join(misnamed)} changes nothing: SMI's settings are called "
            f"{', '.join('smi_' + name for name in misnamed)} there"
        )


def warn_of_nothing(groups: list[Group]) -> None:
    """Warn that nothing is filtered: who wraps an optimizer expects that something is."""
    least = {
        group["smi_min_ndim"]
        for group in groups
        if group["smi"] and any(param.grad is not None for param in group["params"])
    }
    if least:
        _checks.warn(
            "SMI filtered nothing: every gradient is empty or has fewer dimensions than "
            f"min_ndim={min(least)}. min_ndim=1 filters vectors too; what FSDP1 and ZeRO have "
            "flattened has lost its frequencies"
        )
