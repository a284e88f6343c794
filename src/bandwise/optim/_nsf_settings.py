"""NSF's settings: their names in a parameter group, their checks, and the presets."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias, get_args

from torch import Tensor

from bandwise.optim import _checks, schedules
from bandwise.optim._paths.nsf_update import Scale, Update
from bandwise.optim.schedules import Cyclic, Schedule

Group: TypeAlias = dict[str, Any]

_GRAFTED = {"scale": "adam", "decoupled_weight_decay": True}
# What makes each preset what it is.
_FIXED: dict[str, dict[str, Any]] = {
    "authors": {"scale": "none", "decoupled_weight_decay": False},
    "adam-cycle": {**_GRAFTED, "p": Cyclic(0.5, -0.25, period=200)},
    "default": {**_GRAFTED, "p": 0.7},
}
_CHANGEABLE = {"authors": {"lr": 1.0, "weight_decay": 5e-4, "p": Cyclic(0.1, -0.1, period=300)}}


def preset(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The arguments of NSF for a preset with a user's settings; see ``NSF.preset``."""
    _checks.one_of("preset", name, tuple(_FIXED))
    for setting, fixed in _FIXED[name].items():
        if settings.get(setting, fixed) != fixed:
            raise ValueError(
                f"preset {name!r} has {setting}={fixed!r}, got {settings[setting]!r}: leave it "
                "out, or call NSF without a preset"
            )
    return {**_CHANGEABLE.get(name, {}), **settings, **_FIXED[name]}


class Settings(NamedTuple):
    """A group's settings: the arguments of NSF, of which a tensor ``lr`` is read."""

    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    p: float | Schedule
    scale: Scale
    decoupled_weight_decay: bool
    maximize: bool
    total_steps: int | None
    foreach: bool | None
    fused: bool | None

    @classmethod
    def of(cls, group: Group) -> Settings:
        """The settings that stand in a group."""
        settings = cls(*[group[name] for name in cls._fields])
        lr, betas = group["lr"], group["betas"]
        if isinstance(lr, Tensor):
            if lr.numel() != 1:
                raise ValueError(f"lr must be a number or a tensor of one element, got {lr}")
            settings = settings._replace(lr=lr.item())
        # A list may change in place.
        return settings._replace(betas=tuple(betas)) if isinstance(betas, list) else settings

    def check(self) -> None:
        """Raise TypeError or ValueError unless all are of the right types and ranges."""
        _checks.number("lr", self.lr, low=0)
        if not isinstance(self.betas, tuple) or len(self.betas) != 2:
            raise TypeError(f"betas must be a pair of numbers, got {self.betas!r}")
        _checks.number("betas[0]", self.betas[0], low=0, below=1)
        _checks.number("betas[1]", self.betas[1], low=0, below=1)
        _checks.number("eps", self.eps, low=0)
        _checks.number("weight_decay", self.weight_decay, low=0)
        # Powers beyond the sixth leave even double precision.
        schedules.check("p", self.p, self.total_steps, low=-3, high=3)
        _checks.one_of("scale", self.scale, get_args(Scale))
        _checks.flag("decoupled_weight_decay", self.decoupled_weight_decay)
        _checks.flag("maximize", self.maximize)
        _checks.path(self.foreach, self.fused)

    def update(self, step: int) -> Update:
        """The numbers of the equations at a step of the optimizer."""
        p = schedules.value_at(self.p, step, self.total_steps)
        numbers = self.lr, *self.betas, self.eps, self.weight_decay
        return Update(*numbers, p, self.scale, self.decoupled_weight_decay, self.maximize)


def add_later_settings(groups: list[Group]) -> None:
    """Add what the groups of older versions lack, with the value that has their meaning."""
    for group in groups:
        group.setdefault("fused", None)
        group.setdefault("decoupled_weight_decay", True)
