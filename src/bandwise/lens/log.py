"""The lens's log: one row a line, as strict JSON. It can be read at any moment of a run."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from bandwise.files import check_stamp, from_json, stamp, to_json, with_numbers
from bandwise.lens.quantities.quantity import Row

NAME = "lens.jsonl"


class Log:
    """``lens.jsonl`` in a folder, open for appending after its first ``size`` bytes."""

    def __init__(self, folder: Path, size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / NAME
        self._file = self._path.open("ab")
        self._file.truncate(size)

    def append(self, row: Row) -> Row:
        """Write a row as it is returned: with six digits, and ``None`` for what is not finite."""
        row = with_numbers(row, _six_digits)
        self._file.write(to_json(row).encode() + b"\n")
        self._file.flush()
        return row

    def stamp(self) -> dict[str, int]:
        """The log's length and checksum, once it is safe on the disk: see ``check``."""
        os.fsync(self._file.fileno())
        return {f"log_{name}": value for name, value in stamp(self._path).items()}

    def close(self) -> dict[str, int]:
        """Close the file. The result is its last ``stamp``."""
        with self._file:
            return self.stamp()


def check(folder: Path, stamped: dict[str, Any]) -> int:
    """The length of what a ``stamp`` is of; ValueError unless the log still begins with it."""
    path, size = folder / NAME, stamped["log_bytes"]
    if size == 0:
        return 0
    try:
        return check_stamp(path, {"bytes": size, "crc32": stamped["log_crc32"]})
    except (OSError, ValueError) as error:
        raise ValueError(f"the log {path} is not what it was: {error}") from error


def kept(folder: Path, start: int | None) -> int:
    """The length of the rows up to the step ``start``; for ``None`` there must be no rows."""
    if start == 0:
        return 0
    rows = list(_rows(folder))
    if start is not None:
        return max((end for end, row in rows if row["step"] <= start), default=0)
    if rows:
        first, last = rows[0][1]["step"], rows[-1][1]["step"]
        raise FileExistsError(
            f"out must be a folder without a log, got {folder}: its {NAME} holds steps "
            f"{first} to {last} of a training. To record another training name another folder, or "
            "give start=0, which removes that log; to continue that training load the lens's "
            "state_dict, or give start= the steps that it has taken"
        )
    return 0


def check_tensors(folder: Path, size: int, known: set[str]) -> None:
    """ValueError unless the rows in a log's first ``size`` bytes are of known tensors."""
    strange = {row["tensor"] for _, row in _rows(folder, size)} - known
    if strange:
        raise ValueError(
            f"model must be the one that the log in {folder} is of: the log has a tensor "
            f"{min(strange)!r}, which this model does not have. Name another folder, or give "
            "start=0, which removes that log"
        )


def read(folder: Path) -> list[Row]:
    """The rows of a folder's log: see ``Lens.read``. An unfinished last line is ignored."""
    path = folder / NAME
    if not path.is_file():
        raise FileNotFoundError(f"there is no log {path}: a bandwise.Lens writes one")
    return [row for _, row in _rows(folder)]


def _rows(folder: Path, size: int | None = None) -> Iterator[tuple[int, Row]]:
    """The rows in the first ``size`` bytes of a log, or in all; before each, where it ends."""
    path = folder / NAME
    lines = path.read_bytes()[:size].split(b"\n")[:-1] if path.exists() else []
    end = 0
    for number, line in enumerate(lines, start=1):
        end += len(line) + 1
        yield end, _row(path, number, line)


def _row(path: Path, number: int, line: bytes) -> Row:
    with suppress(ValueError):
        row: Row = from_json(line)
        match row:
            case {"step": int(), "quantity": str(), "tensor": str()}:
                return row
    raise ValueError(f"{path}, line {number} is damaged: it is no row of a lens")


def _six_digits(number: float) -> float | None:
    return float(f"{number:.6g}") if math.isfinite(number) else None
