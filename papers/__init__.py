"""The two papers rerun: every table, figure and claim beside our measurement.

``smi`` and ``nsf`` hold a paper each. Its parts are run, its claims are judged, its tables and
figures are made. The rest serves both: ``reproduce`` runs parts and stores their data, ``stored``
reads them, ``verdicts`` has the rule of a verdict, ``ledger`` writes the claims and the pages.
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
        ValueError: there is no such paper.
    """
    one_of("PAPER", name, NAMES)
    return cast(Paper, importlib.import_module(f"papers.{name}").PAPER)
