"""An optimizer around another, as far as that has nothing to do with what it adds."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer

from bandwise.optim import _checks
from bandwise.optim import _state as _checkpoint

Group: TypeAlias = dict[str, Any]
State: TypeAlias = dict[str, Tensor]


class Around(Optimizer):
    """An optimizer that leaves the steps to ``base``.

    State and groups are the base's own, so that nothing can move apart: learning-rate schedulers,
    checkpoints and the base see the same objects, also after the base was given others. What it
    adds stands in them under names of its own.

    Args:
        base: takes the steps.
        defaults: of the settings that it adds to every group, which are there already.
    """

    base: Optimizer
    # What it adds to a parameter's state.
    _state_keys: ClassVar[frozenset[str]] = frozenset()
    _stepping = False

    def __init__(self, base: Optimizer, defaults: Group) -> None:
        # Having no groups and state of its own, it is set up as an unpickled optimizer is.
        self.__setstate__({"base": base, "defaults": {**base.defaults, **defaults}})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        outer = weakref.ref(self)

        def warn(base: Optimizer, args: Any, kwargs: Any) -> None:
            around = outer()
            if around is not None and around.base is base and not around._stepping:
                name = type(around).__name__
                _checks.warn(
                    f"{type(base).__name__}.step was called without the {name} around it, which "
                    f"has no part in this step: call step on the {name}"
                )

        self.base.register_step_pre_hook(warn)

    def _step_base(self, closure: Callable[[], float] | None = None) -> float | None:
        self._stepping = True
        try:
            return self.base.step() if closure is None else self.base.step(closure)
        finally:
            self._stepping = False

    def _own(self) -> set[str]:
        """The names of the settings that it adds to the base's."""
        return self.defaults.keys() - self.base.defaults.keys()

    @property
    def param_groups(self) -> list[Group]:
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[Group]) -> None:
        self.base.param_groups = groups

    @property
    def state(self) -> defaultdict[Tensor, Any]:
        return self.base.state

    @state.setter
    def state(self, state: defaultdict[Tensor, Any]) -> None:
        self.base.state = state

    def state_dict(self) -> dict[str, Any]:
        """As ``torch.optim.Optimizer.state_dict``, the base's state and its own together.

        Schedules and dtypes stand in it as plain data.
        """
        for pre_hook in self._optimizer_state_dict_pre_hooks.values():
            pre_hook(self)
        state_dict = self.base.state_dict()
        state_dict["param_groups"] = _checkpoint.plain(state_dict["param_groups"], self._own())
        for post_hook in self._optimizer_state_dict_post_hooks.values():
            state_dict = post_hook(self, state_dict) or state_dict
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned, of the same kind around the same kind of base.

        Raises:
            ValueError: if it does not fit; then nothing has changed.
        """
        state_dict = dict(state_dict)
        for pre_hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = pre_hook(self, state_dict) or state_dict

        groups, state = _checkpoint.parts(state_dict, self._own())
        matched = _checkpoint.matched(groups, self.param_groups)
        self._fit(groups, state, matched)

        # Taken out of what the base loads, which would cast it to the parameter's dtype.
        base_state, own_state = {}, {}
        for key, entries in state.items():
            own_state[key] = {k: v for k, v in entries.items() if k in self._state_keys}
            if len(own_state[key]) < len(entries):
                base_state[key] = {k: v for k, v in entries.items() if k not in self._state_keys}
        own_state = {
            param: {name: self._placed(value, param) for name, value in own_state[key].items()}
            for key, param in matched
            if key in own_state
        }
        self._load_base({**state_dict, "state": base_state, "param_groups": groups})
        for param, entries in own_state.items():
            self.state[param].update(entries)

        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    def _fit(
        self, groups: list[Group], state: dict[Any, State], matched: list[tuple[Any, Tensor]]
    ) -> None:
        """Bring groups that were saved by an older version up to date; raise ValueError where what
        was saved does not fit the parameters that it is matched with."""

    @torch.no_grad()
    def _placed(self, value: Tensor, param: Tensor) -> Tensor:
        """What it adds to a parameter's state as it is to lie here, in memory of its own."""
        if hasattr(value, "full_tensor"):
            value = value.full_tensor()
        return value.to(param.device, copy=True, memory_format=torch.contiguous_format)

    def _load_base(self, state_dict: dict[str, Any]) -> None:
        """Let the base load. What it makes of the state_dict of another kind is undone."""
        before = dict(vars(self.base))
        needed = [self.base.defaults.keys() & group.keys() for group in self.param_groups]
        try:
            self.base.load_state_dict(state_dict)
            for keys, group in zip(needed, self.param_groups, strict=True):
                if missing := keys - group.keys():
                    raise KeyError(*sorted(missing))
        except BaseException as error:
            vars(self.base).update(before)
            if not isinstance(error, (AttributeError, KeyError, TypeError, ValueError)):
                raise
            kind = type(self.base).__name__
            raise ValueError(f"the state_dict does not fit {kind}: {error!r}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {"base": self.base, "defaults": self.defaults}

    def __repr__(self) -> str:
        return f"{type(self).__name__} around {self.base!r}"
