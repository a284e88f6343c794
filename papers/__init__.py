"""The two papers rerun: every table, figure and claim beside our measurement."""

from __future__ import annotations

import importlib
from typing import cast

from papers.paper import Paper, one_of

NAMES = ("smi", "nsf")


def load(name: str) -> Paper:
    """The paper of that name.

    Args:
        name: ``"smi"`` or ``"nsf"``.

    Raises:
        ValueError: there is no such paper.
    """
    one_of("PAPER", name, NAMES)
    return cast(Paper, importlib.import_module(f"papers.{name}").PAPER)
