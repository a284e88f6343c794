"""The lens's log: one row a line, as strict JSON. It can be read at any moment of a run."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bandwise.files import crc32_of, from_json, to_json, with_numbers
from bandwise.lens.quantities.quantity import Row

NAME = "lens.jsonl"

_WORDS = ("quantity", "tensor")


class Log:
    """``lens.jsonl`` in a folder, open for appending.

    Args:
        folder: made if it is missing.
        size: the bytes that are kept; the rest is removed.
    """

    def __init__(self, folder: Path, size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / NAME).open("ab")
        self._file.truncate(size)
        self._file.seek(size)
        self._crc32 = crc32_of(folder / NAME, size)

    def append(self, row: Row) -> Row:
        """Write a row as it is returned: with six digits, and ``None`` for what is not finite."""
        row = with_numbers(row, _six_digits)
        line = to_json(row).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        self._crc32 = zlib.crc32(line, self._crc32)
        return row

    def stamp(self) -> dict[str, int]:
        """The log's size and checksum, once it is safe on the disk: see ``check``."""
        os.fsync(self._file.fileno())
        return {"log_bytes": self._file.tell(), "log_crc32": self._crc32}

    def close(self) -> None:
        """Close the file, once it is safe on the disk."""
        os.fsync(self._file.fileno())
        self._file.close()


def check(folder: Path, stamp: dict[str, Any]) -> int:
    """Check that a log still begins with what a ``stamp`` is of.

    Returns:
        The bytes of the stamped part.

    Raises:
        ValueError: the log is shorter, or its checksum does not fit.
    """
    path, wanted = folder / NAME, int(stamp["log_bytes"])
    size = path.stat().st_size if path.exists() else 0
    if size < wanted:
        raise ValueError(f"the log in {folder} had {wanted} bytes, and has {size} now")
    crc32 = crc32_of(path, wanted)
    # States of older versions have no checksum.
    if stamp.get("log_crc32", crc32) != crc32:
        raise ValueError(f"the log in {folder} is not what it was: its checksum does not fit")
    return wanted


def until(folder: Path, step: int) -> int:
    """The bytes of the rows up to a step.

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


def check_empty(folder: Path) -> None:
    """Check that a new training does not join the log of another.

    Raises:
        FileExistsError: the folder's log has rows.
        ValueError: a line is damaged.
    """
    steps = [row["step"] for _, row in _rows(folder)]
    if steps:
        raise FileExistsError(
            f"out must be a folder without a log, got {folder}: its {NAME} holds steps "
            f"{steps[0]} to {steps[-1]} of a training. To record another training name another "
            "folder, or give start=0, which removes that log; to continue that training load "
            "the lens's state_dict, or give start= the steps that it has taken"
        )


def check_tensors(folder: Path, size: int, known: set[str]) -> None:
    """Check that the rows in a log's first ``size`` bytes are of known tensors.

    Raises:
        ValueError: a row is of another tensor, or a line is damaged.
    """
    strange = {row["tensor"] for _, row in _rows(folder, size)} - known
    if strange:
        raise ValueError(
            f"model must be the one that the log in {folder} is of: the log has a tensor "
            f"{min(strange)!r}, which this model does not have. Name another folder, or give "
            "start=0, which removes that log"
        )


def read(folder: Path) -> list[Row]:
    """The rows of a folder's log. An unfinished last line is ignored.

    Raises:
        FileNotFoundError: there is no log.
        ValueError: a line is damaged.
    """
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
    try:
        row: Row = from_json(line)
        if type(row["step"]) is int and all(isinstance(row[key], str) for key in _WORDS):
            return row
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(f"{path}, line {number} is damaged: it is no row of a lens")


def _six_digits(number: float) -> float | None:
    return float(f"{number:.6g}") if math.isfinite(number) else None
