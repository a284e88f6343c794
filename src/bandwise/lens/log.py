"""The lens's log: a row a line of strict JSON, readable whenever the run is cut off."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from bandwise.lens.quantity import Row

NAME = "lens.jsonl"


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

    def append(self, row: Row) -> None:
        self._file.write(json.dumps(strict(row), allow_nan=False).encode() + b"\n")
        self._file.flush()

    def saved(self) -> int:
        """Its size in bytes, once they are safe on the disk."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self.saved()
        self._file.close()


def size(folder: Path) -> int:
    """The bytes of a folder's log; 0 if there is none."""
    path = folder / NAME
    return path.stat().st_size if path.exists() else 0


def until(folder: Path, start: int | None) -> tuple[int, int]:
    """The bytes of the rows up to a step, of all whole rows for ``None``, and the last one's step.

    Without rows both are 0.
    """
    kept = last = 0
    path = folder / NAME
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    for line in lines:
        if not line.endswith(b"\n"):
            break
        step = json.loads(line)["step"]
        # Rows stand in the order of their steps.
        if start is not None and step > start:
            break
        kept, last = kept + len(line), step
    return kept, last


def read(folder: Path) -> list[Row]:
    """The rows in a folder's log; a last line that was cut off is ignored.

    Raises:
        FileNotFoundError: there is no log.
        ValueError: a line of it is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        raise FileNotFoundError(f"there is no log {path}: a bandwise.Lens writes one")
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            row["step"], row["quantity"], row["tensor"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number} is damaged: it is no row of a lens") from error
        rows.append(row)
    return rows


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
