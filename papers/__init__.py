"""The two papers rerun: every table, figure and claim beside what was measured."""

from __future__ import annotations

import importlib
from typing import cast

from bandwise.optim import _checks
from papers.paper import Paper

NAMES = ("smi", "nsf")


def load(name: str) -> Paper:
    """The paper of that name, ``"smi"`` or ``"nsf"``.

    Raises:
        ValueError: there is no such paper.
    """
    _checks.one_of("name", name, NAMES)
    return cast(Paper, importlib.import_module(f"papers.{name}").PAPER)
