"""An optimizer that wraps another: shared groups and state, ``state_dict``, pickling."""

import itertools
import weakref
from collections import defaultdict
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

from torch import Tensor
from torch.optim import Optimizer

from bandwise.optim import _checks, _state

Group: TypeAlias = dict[str, Any]
State: TypeAlias = dict[str, Tensor]


class Wrapper(Optimizer):
    """An optimizer that leaves the steps to ``base``.

    Groups and state are the base's own, so that learning-rate schedulers, checkpoints and the base
    see the same objects, also after the base gets new ones. A subclass adds entries of its own.

    Args:
        base: takes the steps.
        defaults: the settings that the subclass adds. Every group has them already.
    """

    base: Optimizer
    # The entries that the subclass adds to a parameter's state.
    _state_keys: ClassVar[frozenset[str]] = frozenset()
    _stepping = False

    def __init__(self, base: Optimizer, defaults: Group) -> None:
        # It has no groups and state to set up, so it starts as an unpickled optimizer does.
        self.__setstate__({"base": base, "defaults": {**base.defaults, **defaults}})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        outer = weakref.ref(self)

        def warn(base: Optimizer, args: Any, kwargs: Any) -> None:
            wrapper = outer()
            if wrapper is not None and wrapper.base is base and not wrapper._stepping:
                name = type(wrapper).__name__
                _checks.warn(
                    f"{type(base).__name__}.step was called without the {name} around it, which "
                    f"has no part in this step: call step on the {name}"
                )

        self.base.register_step_pre_hook(warn)

    def _step_base(
        self, closure: Callable[[], float] | None, before: Callable[[int], None]
    ) -> float | None:
        """Let the base take its step.

        ``before`` runs whenever the base is given gradients, with how many times it ran before.
        """
        self._stepping = True
        evaluations = itertools.count()
        try:
            if closure is None:
                before(next(evaluations))
                return self.base.step()

            def evaluated() -> float:
                loss = closure()
                before(next(evaluations))
                return loss

            return self.base.step(evaluated)
        finally:
            self._stepping = False

    def _own(self) -> set[str]:
        """The names of the settings that the subclass adds."""
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
        """As ``torch.optim.Optimizer.state_dict``, with the entries of the base and its own.

        Schedules and dtypes stand in it as plain data.
        """
        for pre_hook in self._optimizer_state_dict_pre_hooks.values():
            pre_hook(self)
        state_dict = self.base.state_dict()
        state_dict["param_groups"] = _state.plain(state_dict["param_groups"], self._own())
        for post_hook in self._optimizer_state_dict_post_hooks.values():
            state_dict = post_hook(self, state_dict) or state_dict
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned, from the same kind of optimizer around such a base.

        Raises:
            ValueError: it does not fit. Then nothing has changed.
        """
        state_dict = dict(state_dict)
        for pre_hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = pre_hook(self, state_dict) or state_dict

        groups, state = _state.parts(state_dict, self._own())
        self._update(groups)
        group_of = {key: group for group in groups for key in group["params"]}
        # The base would cast the subclass's entries to the parameter's dtype.
        base_state, own_state = {}, {}
        for key, param in _state.matched(groups, self.param_groups):
            entries = dict(state.get(key, {}))
            own_state[param] = {
                name: self._loaded(key, name, entries.pop(name), param, group_of[key])
                for name in self._state_keys & entries.keys()
            }
            if entries:
                base_state[key] = entries
        self._load_base({**state_dict, "state": base_state, "param_groups": groups})
        for param, loaded in own_state.items():
            if loaded:
                self.state[param].update(loaded)

        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    def _update(self, groups: list[Group]) -> None:
        """Bring saved groups of an older version up to date.

        Raises:
            ValueError: a group does not fit.
        """

    def _loaded(self, key: Any, name: str, value: Any, param: Tensor, group: Group) -> Tensor:
        """A copy of a saved entry of the subclass, for a parameter of this process.

        Raises:
            ValueError: it does not fit the parameter.
        """
        raise NotImplementedError

    def _load_base(self, state_dict: dict[str, Any]) -> None:
        """Let the base load. If the state_dict is of another kind of base, undo the changes."""
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
