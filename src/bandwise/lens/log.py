"""The lens's log: one row on each line, as strict JSON, readable whenever the run is cut off."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bandwise import files
from bandwise.lens.quantities.quantity import Row

NAME = "lens.jsonl"

_WORDS = ("quantity", "tensor")


class Log:
    """``lens.jsonl`` in a folder, open for appending.

    Args:
        folder: made if it is not there.
        size: in bytes; what stands beyond is removed.
    """

    def __init__(self, folder: Path, size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / NAME).open("ab")
        self._file.truncate(size)
        self._file.seek(size)
        self._crc32 = files.crc32_of(folder / NAME, size)

    def append(self, row: Row) -> None:
        line = json.dumps(strict(row), allow_nan=False).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        self._crc32 = zlib.crc32(line, self._crc32)

    def saved(self) -> tuple[int, int]:
        """Its size in bytes, once they are safe on the disk, and their CRC-32."""
        os.fsync(self._file.fileno())
        return self._file.tell(), self._crc32

    def close(self) -> None:
        self.saved()
        self._file.close()


def size(folder: Path) -> int:
    """The bytes of a folder's log; 0 if there is none."""
    path = folder / NAME
    return path.stat().st_size if path.exists() else 0


def until(folder: Path, step: int) -> int:
    """The bytes of the rows up to a step; 0 without any.

    Raises:
        ValueError: a line is damaged.
    """
    kept = 0
    for end, row in _rows(folder):
        # Rows stand in the order of their steps.
        if row["step"] > step:
            break
        kept = end
    return kept


def steps(folder: Path) -> tuple[int, int] | None:
    """The steps of the first row and of the last; ``None`` without any.

    Raises:
        ValueError: a line is damaged.
    """
    found = [row["step"] for _, row in _rows(folder)]
    return (found[0], found[-1]) if found else None


def tensors(folder: Path, size: int) -> set[str]:
    """The names of the tensors that the rows in the first ``size`` bytes are of.

    Raises:
        ValueError: a line is damaged.
    """
    return {row["tensor"] for _, row in _rows(folder, size)}


def read(folder: Path) -> list[Row]:
    """The rows in a folder's log; a last line that was cut off is ignored.

    Raises:
        FileNotFoundError: there is no log.
        ValueError: a line of it is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        raise FileNotFoundError(f"there is no log {path}: a bandwise.Lens writes one")
    return [row for _, row in _rows(folder)]


def _rows(folder: Path, size: int | None = None) -> Iterator[tuple[int, Row]]:
    """The whole rows in the first ``size`` bytes, or in all, each behind the byte it ends at."""
    path = folder / NAME
    lines = path.read_bytes()[:size].split(b"\n")[:-1] if path.exists() else []
    end = 0
    for number, line in enumerate(lines, start=1):
        end += len(line) + 1
        yield end, _row(path, number, line)


def _row(path: Path, number: int, line: bytes) -> Row:
    try:
        row: Row = json.loads(line)
        if type(row["step"]) is int and all(isinstance(row[key], str) for key in _WORDS):
            return row
    except (KeyError, RecursionError, TypeError, ValueError):
        pass
    raise ValueError(f"{path}, line {number} is damaged: it is no row of a lens")


def strict(data: Any) -> Any:
    """Numbers to six digits, and ``None`` for those that JSON does not have."""
    match data:
        case float():
            return float(f"{data:.6g}") if math.isfinite(data) else None
        case dict():
            return {key: strict(value) for key, value in data.items()}
        case list() | tuple():
            return [strict(value) for value in data]
        case _:
            return data
