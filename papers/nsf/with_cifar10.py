"""CIFAR-10 in a part: from a file in the part's folder, or downloaded, or left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from papers.paper import Context

_NEAR = ("cifar10.npz", "cifar-10-batches-py")


def with_cifar10(
    context: Context, run: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """A study of CIFAR-10, or the reason for its absence.

    The images are read from ``cifar10.npz`` or ``cifar-10-batches-py`` in the part's folder. If
    neither is there, they are downloaded.

    Args:
        context: the part's.
        run: trains with the options of the task, and returns the stored study.
    """
    paths = [context.folder / name for name in _NEAR]
    path = next((str(path) for path in paths if path.exists()), None)
    try:
        return run({"size": context.scale, "path": path})
    except OSError as error:
        reason = str(error).partition(":")[0]
        return {
            "skipped": f"{reason}; with no network, put one of {', '.join(_NEAR)} into the part's "
            "folder"
        }
