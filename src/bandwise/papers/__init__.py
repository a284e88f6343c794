"""The two papers rerun: every table, figure and claim beside what was measured."""

from __future__ import annotations

import importlib
from typing import cast

from bandwise import _checks
from bandwise.papers.paper import Paper

NAMES = ("smi", "nsf")


def load(name: str) -> Paper:
    """The paper of that name, ``"smi"`` or ``"nsf"``.

    Raises:
        ValueError: there is no such paper.
        ImportError: a package of the ``papers`` extra is not installed.
    """
    _checks.one_of("name", name, NAMES)
    try:
        return cast(Paper, importlib.import_module(f"bandwise.papers.{name}").PAPER)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the papers need the package {error.name!r}: pip install 'bandwise[papers]'"
        ) from error
