"""Files that survive being cut off, and strict JSON."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; what was written takes ``path``'s place at once, and only if all is
    well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    """Write strict JSON: numbers that are not finite become ``{"float": "nan"}`` and the like."""
    text = json.dumps(_strict(data), indent=1, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The inverse of ``write_json``."""
    return from_json(path.read_text(encoding="utf-8"))


def to_json(data: Any) -> str:
    """One line of strict JSON."""
    return json.dumps(_strict(data), allow_nan=False)


def from_json(text: str) -> Any:
    """The inverse of ``to_json``."""
    return json.loads(text, object_hook=_lenient)


def _strict(data: Any) -> Any:
    match data:
        case float() if not math.isfinite(data):
            return {"float": str(data)}
        case dict():
            return {key: _strict(value) for key, value in data.items()}
        case list() | tuple():
            return [_strict(value) for value in data]
        case _:
            return data


def _lenient(data: dict[str, Any]) -> Any:
    return float(data["float"]) if data.keys() == {"float"} else data
