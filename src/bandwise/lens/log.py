"""The lens's log: a row a line of strict JSON, readable whenever the run is cut off."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from bandwise.lens.quantity import Row

NAME = "lens.jsonl"


class Log:
    """``lens.jsonl`` in a folder, open for appending.

    Args:
        folder: made if it is not there.
        start: rows of later steps are forgotten, as what a lost part of the run left; ``None``
            keeps all.
    """

    def __init__(self, folder: Path, start: int | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / NAME
        kept, self.last_step = 0, 0
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        for line in lines:
            if not line.endswith(b"\n"):
                break
            step = json.loads(line)["step"]
            # Rows stand in the order of their steps.
            if start is not None and step > start:
                break
            kept += len(line)
            self.last_step = step
        self._file = path.open("ab")
        self._file.truncate(kept)

    def append(self, row: Row) -> None:
        self._file.write(json.dumps(strict(row), allow_nan=False).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


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
