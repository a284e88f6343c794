"""What the optimizers cost, in time and memory, beside others and beside what nothing can beat.

``smi``, ``nsf``, ``training`` and ``memory`` say what is measured, ``timing`` measures it, and
``results`` holds what came out; ``table`` and ``draw`` show results and measure nothing.
"""

from bandwise.bench.draw import draw
from bandwise.bench.plan import Extent
from bandwise.bench.results import Bench
from bandwise.bench.runner import run
from bandwise.bench.table import table
from bandwise.bench.timing import Rounds

__all__ = ["Bench", "Extent", "Rounds", "draw", "run", "table"]
