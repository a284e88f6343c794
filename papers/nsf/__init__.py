"""The NSF paper rerun, from its abstract and from its authors' public rule and code."""

from papers.nsf.claims import BEYOND, CLAIMS
from papers.nsf.figures import figures
from papers.nsf.parts import PARTS
from papers.nsf.regimes import regime
from papers.nsf.tables import tables
from papers.paper import Paper

PAPER = Paper(
    name="nsf",
    title="Natural Spectral Fusion: p-Exponent Cyclic Scheduling and Early Decision-Boundary "
    "Alignment in First-Order Optimization",
    source="arXiv 2509.04713, 2025; its abstract and a summary were at hand, not its full text. "
    "The rule that it extends is that of the authors' arXiv 2405.18498",
    parts=PARTS,
    claims=CLAIMS,
    tables=tables,
    figures=figures,
    beyond=BEYOND,
    regime=regime,
)
