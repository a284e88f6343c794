"""What the optimizers cost in time and memory, beside other optimizers and beside a floor.

``smi``, ``nsf``, ``training`` and ``memory`` say what is measured. ``timing`` measures it, and
``results`` holds the results. ``table`` and ``draw`` show them. ``distributed`` is a program of its
own, which counts what a step costs each of several ranks.
"""

from benchmarks.draw import draw
from benchmarks.plan import Extent
from benchmarks.results import Bench
from benchmarks.runner import run
from benchmarks.table import table
from benchmarks.timing import Rounds

__all__ = ["Bench", "Extent", "Rounds", "draw", "run", "table"]
