"""The options of a task: its constructor's arguments, and what fits them."""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from bandwise.tasks.task import Task

_WORDS = {"true": True, "false": False}


def described(cls: type[Task]) -> list[str]:
    """``name=default`` of every option, ``name`` of one without a default."""
    return [
        p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in _known(cls).values()
    ]


def check(spec: str, cls: type[Task], options: Mapping[str, Any]) -> None:
    """Raise unless a task takes these options.

    Raises:
        ValueError: it has no such option, or a value does not fit the option's annotation or, where
            there is none, the type of its default.
    """
    known = _known(cls)
    unknown = [name for name in options if name not in known]
    if unknown and not _takes_any(cls):
        raise ValueError(
            f"task {spec!r} has no option {', '.join(map(repr, unknown))}; "
            f"its options are: {', '.join(described(cls)) or 'none'}"
        )
    kinds = _kinds(cls)
    for name, value in options.items():
        kind = kinds.get(name, Any)
        if not _fits(value, kind):
            raise ValueError(f"task {spec!r}: {name} must be {_words(kind)}, got {value!r}")


def read(cls: type[Task], texts: Mapping[str, str]) -> dict[str, Any]:
    """Options from texts: ``"5"`` is a number for an int, and a text for a str.

    A text is a Python literal, ``true`` or ``false`` in any case; one that is none, or whose value
    does not fit the option, stands for itself.
    """
    kinds = _kinds(cls)
    options: dict[str, Any] = {}
    for name, text in texts.items():
        value, kind = _literal(text), kinds.get(name, Any)
        options[name] = text if not _fits(value, kind) and _fits(text, kind) else value
    return options


def _parameters(cls: type[Task]) -> Sequence[inspect.Parameter]:
    return list(inspect.signature(cls).parameters.values())


def _known(cls: type[Task]) -> dict[str, inspect.Parameter]:
    return {p.name: p for p in _parameters(cls) if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _takes_any(cls: type[Task]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in _parameters(cls))


def _kinds(cls: type[Task]) -> dict[str, Any]:
    """Every option's annotation, or the type of its default."""
    try:
        hints = get_type_hints(cls.__init__)
    except (NameError, TypeError):  # an annotation of what is imported for type checkers alone
        hints = {}
    return {
        name: hints.get(name, Any if p.default in (None, p.empty) else type(p.default))
        for name, p in _known(cls).items()
    }


def _fits(value: object, kind: Any) -> bool:
    """Whether a plain value fits an annotation; whatever is not plain, the task must check."""
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin is Annotated:
        return _fits(value, parts[0])
    if kind in (None, type(None)):
        return value is None
    if isinstance(value, bool) and origin in (int, float, bool):
        return origin is bool
    if origin is float:
        return isinstance(value, (int, float))
    if origin in (bool, int, str, dict):
        return isinstance(value, origin)
    if origin in (list, tuple, Sequence):
        # JSON has lists alone.
        if not isinstance(value, (list, tuple)):
            return False
        if origin is tuple and parts and ... not in parts:
            return len(value) == len(parts) and all(map(_fits, value, parts))
        return not parts or all(_fits(item, parts[0]) for item in value)
    return True


def _words(kind: Any) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_words, parts))
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if kind is bool:
        return "true or false"
    if kind in (None, type(None)):
        return "None"
    if isinstance(kind, type) and origin is None:
        return f"of type {kind.__name__}"
    return f"of type {str(kind).replace('typing.', '').replace('collections.abc.', '')}"


def _literal(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
