"""The NSF paper rerun, as far as its abstract says what was done."""

from bandwise.papers.nsf import parts
from bandwise.papers.paper import Paper, Part

PAPER = Paper(
    name="nsf",
    title="Natural Spectral Fusion: p-Exponent Cyclic Scheduling and Early Decision-Boundary "
    "Alignment in First-Order Optimization",
    source="arXiv 2509.04713, 2025; its abstract and a summary were at hand, not its full text",
    parts=(
        Part("lead", "Exponents above Adam's on a character GPT", parts.lead),
        Part("ablation", "The cycle's period, shape, range and scale", parts.ablation),
    ),
    claims=(),
)
