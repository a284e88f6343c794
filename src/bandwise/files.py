"""Files that survive a crash: atomic replacement, strict JSON, checksums against flipped bits."""

import json
import math
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_KEY, _MARK = "crc32", b"crc32"
_CHANGED = "its checksum does not fit: it is not what was written"
_DEEP = "it is nested too deeply"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Replace a file at once, and only if everything was written to the path that this yields."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.filename == str(temporary):
            # The user does not know the temporary name.
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def stamp(path: Path, size: int = -1) -> dict[str, int]:
    """The length and the checksum of a file's first ``size`` bytes, by default of all."""
    with path.open("rb") as file:
        content = file.read(size)
    return {"bytes": len(content), _KEY: zlib.crc32(content)}


def check_stamp(path: Path, stamped: dict[str, int]) -> int:
    """The length of what was stamped; ValueError unless the file still begins with it."""
    size, wanted = path.stat().st_size, stamped["bytes"]
    if size < wanted:
        raise ValueError(f"it has {size} bytes, and had {wanted}")
    if stamp(path, wanted) != stamped:
        raise ValueError(_CHANGED)
    return wanted


def signed(content: bytes) -> bytes:
    """Content with its checksum at the end. Readers of archives ignore these bytes."""
    return content + _MARK + zlib.crc32(content).to_bytes(4)


def unsigned(content: bytes) -> bytes:
    """The inverse of ``signed``. Content without a checksum is from older versions."""
    rest, mark, crc32 = content[:-9], content[-9:-4], content[-4:]
    if mark != _MARK:
        return content
    if zlib.crc32(rest) != int.from_bytes(crc32):
        raise ValueError(_CHANGED)
    return rest


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write ``data`` as strict JSON with a checksum in its field ``crc32``: see ``to_json``."""
    plain = {**_encoded(data), _KEY: _crc32_of_json(data)}
    with replacing(path) as temporary:
        text = json.dumps(plain, indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """The inverse of ``write_json``; ValueError: it is no JSON, or its checksum does not fit."""
    data = from_json(path.read_text(encoding="utf-8"))
    try:
        # Files of older versions have no checksum.
        if isinstance(data, dict) and _KEY in data and data.pop(_KEY) != _crc32_of_json(data):
            raise ValueError(_CHANGED)
    except RecursionError:
        raise ValueError(_DEEP) from None
    return data


def to_json(data: Any) -> str:
    """One line of strict JSON. A number that is not finite becomes ``{"float": "nan"}``."""
    return json.dumps(_encoded(data), allow_nan=False)


def from_json(text: str | bytes) -> Any:
    """The inverse of ``to_json``. ValueError: the text is no JSON."""
    try:
        return json.loads(text, object_hook=_decoded)
    except RecursionError:
        raise ValueError(_DEEP) from None


def with_numbers(data: Any, number: Callable[[float], Any]) -> Any:
    """Plain data with ``number(x)`` in the place of every float x; tuples become lists."""
    match data:
        case float():
            return number(data)
        case dict():
            return {key: with_numbers(value, number) for key, value in data.items()}
        case list() | tuple():
            return [with_numbers(value, number) for value in data]
        case _:
            return data


def _crc32_of_json(data: Any) -> int:
    return zlib.crc32(to_json(data).encode())


def _encoded(data: Any) -> Any:
    return with_numbers(data, lambda x: x if math.isfinite(x) else {"float": str(x)})


def _decoded(table: dict[str, Any]) -> Any:
    stands_for_number = len(table) == 1 and table.get("float") in ("nan", "inf", "-inf")
    return float(table["float"]) if stands_for_number else table
