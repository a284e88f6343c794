"""What the optimizers cost in time and memory, beside other optimizers and beside a floor.

``smi``, ``nsf``, ``training`` and ``memory`` define the cases. ``timing`` measures them, and
``results`` holds the results. ``table`` and ``draw`` show them. ``distributed`` is a program of its
own. It counts the cost of a step for each of several ranks.
"""

from benchmarks.draw import draw
from benchmarks.plan import Extent
from benchmarks.results import Bench
from benchmarks.runner import run
from benchmarks.table import table
from benchmarks.timing import Rounds

__all__ = ["Bench", "Extent", "Rounds", "draw", "run", "table"]
