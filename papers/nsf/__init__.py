"""The NSF paper rerun, as far as its abstract says what was done."""

from papers.nsf import parts
from papers.nsf.claims import CLAIMS
from papers.nsf.figures import figures
from papers.nsf.tables import tables
from papers.paper import Paper, Part

_OTHERS = "pytorch_optimizer"

PAPER = Paper(
    name="nsf",
    title="Natural Spectral Fusion: p-Exponent Cyclic Scheduling and Early Decision-Boundary "
    "Alignment in First-Order Optimization",
    source="arXiv 2509.04713, 2025; its abstract and a summary were at hand, not its full text",
    parts=(
        Part("lead", "Exponents above Adam's on a character GPT", parts.lead, (_OTHERS,)),
        Part("steps", "p = 0.7 over shorter and longer runs", parts.steps),
        Part("images", "Images: error, cost, alignment", parts.images),
        Part("ablation", "The cycle's period, shape, range and scale", parts.ablation),
        Part("layers", "p = 0.7 by kind of layer", parts.layers),
        Part("mechanism", "p = 0.7 by part of d", parts.mechanism),
        Part(
            "tuned", "Every optimizer tuned with the same budget", parts.tuned, ("optuna", _OTHERS)
        ),
        Part("response", "Which frequencies each exponent favours", parts.response),
    ),
    claims=CLAIMS,
    tables=tables,
    figures=figures,
)
