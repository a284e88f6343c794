"""What the optimizers share in saving and loading their ``state_dict``.

``torch.distributed.checkpoint`` and ``torch.load(weights_only=True)`` take plain data alone. So
the optimizers' own settings are saved as such: a schedule as ``{"schedule": "Linear", …}``, a dtype
as ``{"dtype": "float32"}``. Settings of others in the same groups stay what they are.
"""

from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Any, TypeAlias

import torch
from torch import Tensor

from bandwise.optim.schedules import SCHEDULES, Schedule

Group: TypeAlias = dict[str, Any]


def plain(groups: list[Group], settings: Collection[str]) -> list[Group]:
    """Parameter groups with the named settings as plain data."""
    return [
        {key: _plain(value) if key in settings else value for key, value in group.items()}
        for group in groups
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, Schedule):
        return {"schedule": type(value).__name__, **asdict(value)}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    return value


def revived(groups: list[Group], settings: Collection[str]) -> list[Group]:
    """The inverse of ``plain``.

    Raises:
        ValueError: a setting is a schedule that does not exist or cannot be made.
    """
    return [
        {key: _revived(value) if key in settings else value for key, value in group.items()}
        for group in groups
    ]


def _revived(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {"dtype"}:
        found = getattr(torch, str(value["dtype"]), None)
        return found if isinstance(found, torch.dtype) else value
    if not (isinstance(value, dict) and "schedule" in value):
        return value
    fields = {key: item for key, item in value.items() if key != "schedule"}
    if value["schedule"] not in SCHEDULES:
        raise ValueError(
            f"the state_dict has a schedule that does not exist: {value}; "
            "if it is a class of yours, import it first"
        )
    try:
        return SCHEDULES[value["schedule"]](**fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the state_dict has a schedule that cannot be made: {value}") from error


def parts(
    state_dict: dict[str, Any], settings: Collection[str]
) -> tuple[list[Group], dict[Any, Any]]:
    """The groups of a state_dict, the named settings revived, and its state.

    Raises:
        ValueError: a part is missing, or see ``revived``.
    """
    for name in ("param_groups", "state"):
        if name not in state_dict:
            raise ValueError(
                f"the state_dict lacks {name!r}: it must be what state_dict() returned"
            )
    return revived(state_dict["param_groups"], settings), state_dict["state"]


def matched(saved: list[Group], groups: list[Group]) -> list[tuple[Any, Tensor]]:
    """The keys of the parameters in saved groups, each with the parameter that it stands for.

    Raises:
        ValueError: the groups differ in number or size.
    """
    theirs = [len(group["params"]) for group in saved]
    ours = [len(group["params"]) for group in groups]
    if theirs != ours:
        raise ValueError(
            f"the state_dict's parameter groups have {theirs} parameters, the optimizer's {ours}"
        )
    return [
        pair
        for old, new in zip(saved, groups, strict=True)
        for pair in zip(old["params"], new["params"], strict=True)
    ]


def check_groups(groups: list[Group], check: Callable[[Group], None]) -> None:
    """Raise ValueError where a saved group lacks a setting or has one of a wrong type or range."""
    for group in groups:
        try:
            check(group)
        except KeyError as error:
            raise ValueError(
                f"the state_dict's parameter groups do not fit: they lack {error}"
            ) from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"the state_dict's parameter groups do not fit: {error}") from error


def check_shape(key: Any, name: str, value: Any, right: tuple[int, ...]) -> None:
    """Raise unless a saved value is a tensor of the right shape."""
    found = tuple(value.shape) if isinstance(value, Tensor) else value
    if found != right:
        raise ValueError(
            f"the state_dict's {name} of parameter {key} has shape {found}, "
            f"this optimizer's needs {right}"
        )
