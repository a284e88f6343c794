"""Tasks to train: seven are built in (imported when loaded), others are the user's classes."""

from collections.abc import Mapping
from typing import Any, get_args

from bandwise import userfile
from bandwise.optim import _checks
from bandwise.tasks import options as _options
from bandwise.tasks.task import (
    Direction,
    Recipe,
    Split,
    Task,
    epoch_batch,
    epoch_indices,
    generator,
)

__all__ = [
    "Direction",
    "Recipe",
    "Split",
    "Task",
    "epoch_batch",
    "epoch_indices",
    "generator",
    "load",
    "names",
]

_BUILT_IN = {
    "shakespeare-char": "bandwise.tasks.shakespeare_char.ShakespeareChar",
    "mnist-5k": "bandwise.tasks.mnist_5k.Mnist5k",
    "cifar10": "bandwise.tasks.cifar10.Cifar10",
    "digits": "bandwise.tasks.digits.Digits",
    "sines": "bandwise.tasks.sines.Sines",
    "two-moons": "bandwise.tasks.two_moons.TwoMoons",
    "char-lstm": "bandwise.tasks.char_lstm.CharLstm",
}


def names() -> tuple[str, ...]:
    """The built-in tasks' names, as ``load`` takes them."""
    return tuple(_BUILT_IN)


def load(spec: str, options: Mapping[str, Any] | None = None) -> Task:
    """Make a task.

    Args:
        spec: a built-in name (see ``names``), a class in a file, ``path/to/file.py:MyTask``, or in
            a package or module that Python can import, ``package.MyTask``.
        options: keyword arguments of the task's constructor.

    Raises:
        ValueError: there is no such task, or it has no such option, or a value is wrong.
        TypeError: the task is not named by a text.
        UserFileError: the user's file cannot be loaded, or raises (a ``ValueError`` too).
        ImportError: the task needs a package that is not installed.
    """
    options = dict(options or {})
    cls = find(spec)
    _options.check(spec, cls, options)
    try:
        with userfile.blamed(spec):
            task = cls(**options)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"task {spec!r} needs the package {error.name!r}. Those of built-in tasks come with "
            'pip install "bandwise[study]"'
        ) from error
    for attribute, kind in (("name", str), ("metric", str), ("recipe", Recipe), ("splits", tuple)):
        value = getattr(task, attribute, None)
        if not isinstance(value, kind):
            raise ValueError(
                f"task {spec!r} must set {attribute} to a {kind.__name__}, got {value!r}"
            )
    _checks.one_of(f"task {spec!r}'s direction", task.direction, get_args(Direction))
    if not {"val"} <= set(task.splits) <= {"val", "test"}:
        raise ValueError(
            f"task {spec!r}'s splits must be ('val',) or ('val', 'test'), got {task.splits!r}"
        )
    return task


def describe(spec: str) -> tuple[list[str], Recipe]:
    """``name=default`` of a task's options, and its recipe, which some options change."""
    cls = find(spec)
    recipe = getattr(cls, "recipe", None)
    return _options.described(cls), recipe if isinstance(recipe, Recipe) else load(spec).recipe


def find(spec: str) -> type[Task]:
    """A task's class; ``spec`` and errors as in ``load``."""
    if not isinstance(spec, str):
        examples = "'digits', 'package.MyTask' or 'path/to/file.py:MyTask'"
        raise TypeError(f"a task must be written as a text, such as {examples}, got {spec!r}")
    name = _BUILT_IN.get(spec, spec)
    if userfile.is_userfile(name):
        found = userfile.load(name).value
    elif "." in name:
        found = userfile.load_dotted(name)
    else:
        raise ValueError(
            f"there is no task {spec!r}: choose one of {', '.join(_BUILT_IN)}, "
            "or a class of your own, package.MyTask or path/to/file.py:MyTask"
        )
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise ValueError(f"{spec!r} must be a subclass of bandwise.tasks.Task, got {found!r}")
    return found
