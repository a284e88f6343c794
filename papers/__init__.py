"""Reruns of the two papers: every table, figure and claim beside our measurement.

``smi`` and ``nsf`` hold a paper each: its parts, claims, tables and figures. The other modules
serve both. ``reproduce`` runs parts and stores their data, and ``stored`` reads them. ``verdicts``
has the rule of a verdict. ``ledger`` writes the claims and the pages.
"""

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
        ValueError: no paper has this name.
    """
    one_of("PAPER", name, NAMES)
    return cast(Paper, importlib.import_module(f"papers.{name}").PAPER)
