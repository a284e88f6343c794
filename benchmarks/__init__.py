"""What the optimizers cost, in time and memory, beside others and beside what nothing can beat.

``smi``, ``nsf``, ``training`` and ``memory`` say what is measured, ``timing`` measures it, and
``results`` holds what came out; ``table`` and ``draw`` show results and measure nothing.
"""

from benchmarks.draw import draw
from benchmarks.plan import Extent
from benchmarks.results import Bench
from benchmarks.runner import run
from benchmarks.table import table
from benchmarks.timing import Rounds

__all__ = ["Bench", "Extent", "Rounds", "draw", "run", "table"]
