"""The options of a task: its constructor's arguments, plain data that pydantic checks."""

import ast
import inspect
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation

from bandwise.tasks.task import Task


def described(cls: type[Task]) -> list[str]:
    """``name=default`` of every option, ``name`` of one without a default."""
    return [
        name if p.default is p.empty else f"{name}={p.default!r}"
        for name, p in inspect.signature(cls).parameters.items()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def check(spec: str, cls: type[Task], options: Mapping[str, Any]) -> None:
    """Raise a ValueError unless a task has these options and their values fit."""
    parameters, types = inspect.signature(cls).parameters, _types(cls)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name, value in options.items():
        if name not in parameters and not takes_any:
            listed = ", ".join(described(cls)) or "none"
            raise ValueError(f"task {spec!r} has no option {name!r}; its options are: {listed}")
        if wrong := _misfit(types.get(name), value):
            raise ValueError(f"task {spec!r}: {name}: {wrong}, got {value!r}")


def read(cls: type[Task], texts: Mapping[str, str]) -> dict[str, Any]:
    """Options from texts: ``"5"`` is a number for an int, and a text for a str.

    A text is JSON or a Python literal. If it is neither, or if the text fits the option and the
    value does not, it stands for itself.
    """
    types = _types(cls)
    return {name: _read(types.get(name), text) for name, text in texts.items()}


def write(cls: type[Task], options: Mapping[str, Any]) -> dict[str, str]:
    """The inverse of ``read``: a text of each option that is read as the same plain data."""
    types = _types(cls)
    return {
        name: value
        if isinstance(value, str) and value.isprintable() and _read(types.get(name), value) == value
        else json.dumps(value)
        for name, value in options.items()
    }


def _read(kind: TypeAdapter[Any] | None, text: str) -> Any:
    candidates: list[Any] = []
    for parse in (json.loads, ast.literal_eval, str):
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            candidates.append(parse(text))
    return next((value for value in candidates if not _misfit(kind, value)), candidates[0])


def _misfit(kind: TypeAdapter[Any] | None, value: Any) -> str:
    """Why a value does not fit; empty if it does. Types are as strict as those of JSON."""
    try:
        if kind is not None:
            kind.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        return "; ".join(dict.fromkeys(each["msg"] for each in error.errors()))
    except (TypeError, ValueError) as error:  # it is no plain data
        return str(error)
    return ""


def _types(cls: type[Task]) -> dict[str, TypeAdapter[Any]]:
    """The types of the options that have one which pydantic knows; a task checks the others."""
    types = {
        name: type(parameter.default)
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.default not in (None, parameter.empty)
    }
    with suppress(NameError, TypeError):  # an annotation that is imported for type checkers alone
        types |= get_type_hints(cls.__init__, include_extras=True)
    found = {}
    for name, kind in types.items():
        with suppress(PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
            found[name] = TypeAdapter(kind)
    return found
