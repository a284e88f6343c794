"""Optimizers by name: torch's, ``nsf``, a package's, the user's own, and ``smi-`` around any."""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from bandwise import userfile
from bandwise.optim import _checks
from bandwise.optim.nsf import NSF
from bandwise.optim.smi import SMI
from bandwise.study.spec import WRAPPED, Spec
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
# ``foreach`` and ``fused`` have a prefix, because most optimizers have options of these names.
_SMI_OPTIONS = tuple(
    f"smi_{name}" if name in ("foreach", "fused") else name
    for name in inspect.signature(SMI).parameters
    if name not in ("base", "shard_work")
)
_SMI_PRESETS = ("adamw", "adam", "sgd", "lion")


def names() -> list[str]:
    """The short names of optimizers. ``smi-`` may stand before each."""
    return ["nsf", *sorted(_TORCH)]


def build(
    spec: Spec, named_parameters: Iterable[tuple[str, nn.Parameter]], lr: float, recipe: Recipe
) -> Optimizer:
    """Make the optimizer that ``spec`` names.

    ``package.Class`` is an optimizer of an installed package: ``pytorch_optimizer.Lion``. It may be
    a function that makes one. ``file.py:factory`` is a class or function of the user's. A function
    gets the parameters. If its first argument is called ``named_parameters``, it gets
    (name, parameter) pairs.

    ``smi-NAME`` is ``bandwise.SMI`` around any of these, with the preset for NAME where the paper
    has one. SMI's options (alpha, beta, q, total_steps, …, and ``preset``) go to SMI, the others to
    NAME. ``smi_fused`` and ``smi_foreach`` are SMI's, ``fused`` and ``foreach`` are NAME's.

    ``sgd`` has a momentum of 0.9 by default.

    Args:
        spec: the optimizer, as it was read.
        named_parameters: of the model.
        lr: peak learning rate; an option ``lr`` goes before it.
        recipe: the steps, betas and decay of those optimizers that take them.

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
        base_name = name.removeprefix(WRAPPED)
        settings = {
            key.removeprefix("smi_"): options.pop(key) for key in _SMI_OPTIONS if key in options
        }
        kind = base_name.rpartition(".")[2].lower()
        default = kind if kind in _SMI_PRESETS else "adamw"
        preset = options.pop("preset", default)
        base = _build(base_name, named, options, recipe, (*_SMI_OPTIONS, "preset"))
        return SMI.preset(preset, base, **{**shared, **settings})
    if userfile.is_userfile(name):
        return _checked(_call(userfile.load(name).value, named, shared, options, around))
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
    make = userfile.load_dotted(name) if "." in name else NSF if name == "nsf" else _TORCH[name]
    if not callable(make):
        raise TypeError(f"{name} must be an optimizer's class or a function, got {make!r}")
    return _checked(_call(make, named, shared, options, around))


def package_version(name: str) -> dict[str, str]:
    """The package of an optimizer or a task, and its version; empty for bandwise's."""
    if userfile.is_userfile(name) or "." not in name or name.startswith("bandwise."):
        return {}
    packages = _packages().get(name.partition(".")[0], [])
    return {package: importlib.metadata.version(package) for package in packages}


@functools.cache
def _packages() -> Mapping[str, list[str]]:
    """The installed packages by the modules that they hold. It takes a second to find them."""
    return importlib.metadata.packages_distributions()


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
    """Call ``make`` with its options and with the shared settings that it takes."""
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
