"""CRC-32s, for files to say whether they still hold what was written.

A flipped bit may leave a file readable and its numbers wrong. It is no guard against intent.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

_KEY = "crc32"
_MARK = b"crc32"
_TAIL = len(_MARK) + 4
_WRONG = "its checksum does not fit: it is not what was written"


def of_file(path: Path, size: int) -> int:
    """Of a file's first bytes; of none there need be no file."""
    if size == 0:
        return 0
    with path.open("rb") as file:
        return zlib.crc32(file.read(size))


def signed(content: bytes) -> bytes:
    """Content with its checksum at the end, where readers of archives look at nothing."""
    return content + _MARK + zlib.crc32(content).to_bytes(4)


def unsigned(content: bytes) -> bytes:
    """The inverse of ``signed``; what has no checksum, as files from before, is left as it is.

    Raises:
        ValueError: it is not the content that was signed.
    """
    rest, mark, crc32 = content[:-_TAIL], content[-_TAIL:-4], content[-4:]
    if mark != _MARK:
        return content
    if zlib.crc32(rest) != int.from_bytes(crc32):
        raise ValueError(_WRONG)
    return rest


def sealed(data: dict[str, Any]) -> dict[str, Any]:
    """Plain data with the checksum of its JSON as one more field."""
    return {**data, _KEY: _of_json(data)}


def opened(data: Any) -> Any:
    """The inverse of ``sealed``; what has no checksum, as files from before, is left as it is.

    Raises:
        ValueError: they are not the data that were sealed.
    """
    if not (isinstance(data, dict) and _KEY in data):
        return data
    rest = {key: value for key, value in data.items() if key != _KEY}
    if data[_KEY] != _of_json(rest):
        raise ValueError(_WRONG)
    return rest


def _of_json(data: Any) -> int:
    return zlib.crc32(json.dumps(data).encode())
