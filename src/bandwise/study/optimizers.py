"""Optimizers by name: torch's, ``nsf``, a package's, ``smi-`` around any, and the user's own."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer

from bandwise import userfile
from bandwise.optim import _checks
from bandwise.optim.nsf import NSF
from bandwise.optim.smi import SMI
from bandwise.study.spec import Spec
from bandwise.tasks import Recipe

# SparseAdam needs sparse gradients, which no task has.
_TORCH: dict[str, type[Optimizer]] = {
    name.lower(): cls
    for name, cls in vars(torch.optim).items()
    if inspect.isclass(cls)
    and issubclass(cls, Optimizer)
    and name not in ("Optimizer", "SparseAdam")
}
_DECOUPLED_DECAY = ("adamw", "nsf")
# With a prefix, as in parameter groups, where most optimizers have an option of that name.
_SMI_OPTIONS = (
    *("alpha", "beta", "q", "min_ndim", "total_steps", "history_dtype", "refresh_every"),
    *("smi_foreach", "smi_fused"),
)
_SMI_PRESETS = ("adamw", "adam", "sgd", "lion")


def names() -> list[str]:
    """The short names there are, without those that ``smi-`` makes of them."""
    return ["nsf", *sorted(_TORCH)]


def build(
    spec: Spec, named_parameters: Iterable[tuple[str, nn.Parameter]], lr: float, recipe: Recipe
) -> Optimizer:
    """The optimizer that ``spec`` names.

    ``package.Class`` is an optimizer of an installed package, or a function there that makes one:
    ``pytorch_optimizer.Lion``. A function gets the parameters; one whose first argument is called
    ``named_parameters`` gets (name, parameter) pairs, to treat layers by their kind.

    ``smi-NAME`` is ``bandwise.SMI`` around NAME with the preset for it where the paper has
    one; its own options (alpha, beta, q, total_steps, …, and ``preset``) go to SMI, the others to
    NAME.
    ``smi_fused`` and ``smi_foreach`` are SMI's, ``fused`` and ``foreach`` are NAME's. ``sgd`` has a
    momentum of 0.9 unless told otherwise. ``lr`` may be given as an option.

    Raises:
        ValueError: an unknown name or option, or a value that the optimizer refuses; names both.
    """
    options = {"lr": lr, **spec.options}
    try:
        _checks.number("lr", options["lr"], low=0)
        return _build(spec.name, list(named_parameters), options, recipe)
    except Exception as error:
        # Not every optimizer looks at its options before it uses them.
        kind = "" if isinstance(error, (TypeError, ValueError)) else f"{type(error).__name__}: "
        what = userfile.told(error, spec.name) or f"{kind}{error}"
        raise ValueError(f"optimizer {spec.text!r}: {what}") from error


def _build(
    name: str,
    named: list[tuple[str, nn.Parameter]],
    options: dict[str, Any],
    recipe: Recipe,
    around: tuple[str, ...] = (),
) -> Optimizer:
    """Those of ``around`` are the options of what goes around it, for the error to list."""
    shared: dict[str, Any] = {"total_steps": recipe.steps}
    if userfile.is_userfile(name):
        return _checked(_call(userfile.load(name).value, named, shared, options, around))
    if name.startswith("smi-"):
        base_name = name.removeprefix("smi-")
        settings = {
            key.removeprefix("smi_"): options.pop(key) for key in _SMI_OPTIONS if key in options
        }
        kind = base_name.rpartition(".")[2].lower()
        default = kind if kind in _SMI_PRESETS else "adamw"
        preset = options.pop("preset", default)
        base = _build(base_name, named, options, recipe, (*_SMI_OPTIONS, "preset"))
        return SMI.preset(preset, base, **{**shared, **settings})
    if "." not in name and name != "nsf" and name not in _TORCH:
        raise ValueError(
            f"name must be one of {', '.join(names())}, smi- before any of these, "
            "package.Class, or file.py:factory"
        )
    if name == "sgd":
        shared["momentum"] = 0.9
    if recipe.betas is not None:
        shared["betas"] = recipe.betas
    if recipe.weight_decay is not None and name in _DECOUPLED_DECAY:
        shared["weight_decay"] = recipe.weight_decay
    make = _of_package(name) if "." in name else NSF if name == "nsf" else _TORCH[name]
    return _checked(_call(make, named, shared, options, around))


def package_version(name: str) -> dict[str, str]:
    """The package that the optimizer's code comes from, and its version; empty for bandwise's."""
    name = name.removeprefix("smi-")
    if userfile.is_userfile(name) or "." not in name or name.startswith("bandwise."):
        return {}
    distributions = importlib.metadata.packages_distributions().get(name.partition(".")[0], [])
    return {package: importlib.metadata.version(package) for package in distributions}


def _of_package(name: str) -> Callable[..., Any]:
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise ValueError(f"{name} needs the package {error.name!r}: it is not installed") from error
    except AttributeError as error:
        raise ValueError(f"the module {module} has no {attribute!r}") from error
    if not callable(found):
        raise TypeError(f"{name} must be an optimizer's class or a function, got {found!r}")
    return cast(Callable[..., Any], found)


def _checked(made: object) -> Optimizer:
    if not isinstance(made, Optimizer):
        raise TypeError(f"it must be a torch.optim.Optimizer, or return one, got {made!r}")
    return made


def _call(
    make: Callable[..., Any],
    named: list[tuple[str, nn.Parameter]],
    shared: dict[str, Any],
    options: dict[str, Any],
    around: tuple[str, ...],
) -> Any:
    """Give ``make`` its options, and those of the shared settings that it takes."""
    accepted = inspect.signature(make).parameters
    first = next(iter(accepted), "")
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    unknown = [key for key in options if not takes_any and key not in accepted]
    if unknown:
        known = [key for key in (*around, *accepted) if key != first]
        raise ValueError(
            f"there is no option {', '.join(map(repr, unknown))}; its options are "
            f"{', '.join(dict.fromkeys(known))}"
        )
    shared = {key: value for key, value in shared.items() if takes_any or key in accepted}
    params = named if first == "named_parameters" else [p for _, p in named]
    return make(params, **{**shared, **options})
