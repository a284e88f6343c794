"""Optimizers by name: torch's, ``nsf``, a package's, the user's own, and ``smi-`` around any."""

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from bandwise import userfile
from bandwise.optim import _checks
from bandwise.optim._smi_settings import Settings
from bandwise.optim.nsf import NSF
from bandwise.optim.smi import SMI
from bandwise.study.spec import WRAPPED, Spec
from bandwise.tasks import Recipe

# SparseAdam needs sparse gradients, which no task has.
_SHORT: dict[str, type[Optimizer]] = {"nsf": NSF} | {
    name.lower(): cls
    for name, cls in inspect.getmembers(torch.optim, inspect.isclass)
    if issubclass(cls, Optimizer) and name not in ("Optimizer", "SparseAdam")
}
_DECOUPLED_DECAY = ("adamw", "nsf")
# ``foreach`` and ``fused`` have a prefix, because most optimizers have options of these names.
_SMI_OPTIONS = tuple(
    f"smi_{name}" if name in ("foreach", "fused") else name
    for name in (*Settings._fields, "preset")
)
_SMI_PRESETS = ("adamw", "adam", "sgd", "lion")


def names() -> list[str]:
    """The short names of optimizers. ``smi-`` may stand before each."""
    return sorted(_SHORT, key=lambda name: (name != "nsf", name))


def build(
    spec: Spec, named_parameters: Iterable[tuple[str, nn.Parameter]], lr: float, recipe: Recipe
) -> Optimizer:
    """Make the optimizer that ``spec`` names. A ValueError names it and what is wrong.

    ``package.Class`` and ``file.py:factory`` are classes of optimizers, or functions that make one
    of parameters, or of (name, parameter) pairs if the first argument is ``named_parameters``.
    ``smi-NAME`` is ``bandwise.SMI`` around NAME, with the preset for NAME where the paper has one.
    It gets SMI's options, and NAME the others. An option ``lr`` goes before the argument.
    """
    options = {"lr": lr, **spec.options}
    try:
        _checks.number("lr", options["lr"], low=0)
        return _build(spec.name, list(named_parameters), options, recipe)
    except Exception as error:
        # Not every optimizer looks at its options before it uses them.
        kind = "" if isinstance(error, (TypeError, ValueError)) else f"{type(error).__name__}: "
        what = userfile.explain(error, spec.base) or f"{kind}{error}"
        raise ValueError(f"optimizer {spec.text!r}: {what}") from error


def _build(
    name: str,
    named: list[tuple[str, nn.Parameter]],
    options: dict[str, Any],
    recipe: Recipe,
    around: tuple[str, ...] = (),
) -> Optimizer:
    """Make an optimizer by its name. Errors list its options and those of ``around``."""
    shared: dict[str, Any] = {"total_steps": recipe.steps}
    if name.startswith(WRAPPED):
        inner = name.removeprefix(WRAPPED)
        own = {key: options.pop(key) for key in _SMI_OPTIONS if key in options}
        kind = inner.rpartition(".")[2].lower()
        preset = own.pop("preset", kind if kind in _SMI_PRESETS else "adamw")
        base = _build(inner, named, options, recipe, _SMI_OPTIONS)
        settings = {key.removeprefix("smi_"): value for key, value in own.items()}
        return SMI.preset(preset, base, **{**shared, **settings})
    make = _found(name)
    if name == "sgd":
        shared["momentum"] = 0.9
    if recipe.betas is not None and not userfile.is_userfile(name):
        shared["betas"] = recipe.betas
    if recipe.weight_decay is not None and name in _DECOUPLED_DECAY:
        shared["weight_decay"] = recipe.weight_decay
    accepted = inspect.signature(make).parameters
    first = next(iter(accepted), "")
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    unknown = [key for key in options if not takes_any and key not in accepted]
    if unknown:
        known = dict.fromkeys(key for key in (*around, *accepted) if key != first)
        raise ValueError(
            f"there is no option {', '.join(map(repr, unknown))}; "
            f"its options are {', '.join(known)}"
        )
    shared = {key: value for key, value in shared.items() if takes_any or key in accepted}
    params = named if first == "named_parameters" else [param for _, param in named]
    made = make(params, **{**shared, **options})
    if not isinstance(made, Optimizer):
        raise TypeError(f"it must be a torch.optim.Optimizer, or return one, got {made!r}")
    return made


def _found(name: str) -> Any:
    """The class or function that a name stands for."""
    if userfile.is_userfile(name):
        return userfile.load(name).value
    if name in _SHORT:
        return _SHORT[name]
    if "." not in name:
        raise ValueError(
            f"name must be one of {', '.join(names())}, smi- before any of these, "
            "package.Class, or file.py:factory"
        )
    found = userfile.load_dotted(name)
    if not callable(found):
        raise TypeError(f"{name} must be an optimizer's class or a function, got {found!r}")
    return found
