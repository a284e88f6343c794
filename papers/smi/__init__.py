"""The SMI paper rerun: Huang, Chen, Zheng, "Spectral momentum integration", 2025."""

from papers.paper import Paper
from papers.smi.claims import APART, CLAIMS
from papers.smi.figures import figures
from papers.smi.parts import PARTS
from papers.smi.regimes import regime
from papers.smi.tables import tables

PAPER = Paper(
    name="smi",
    title="Spectral momentum integration: hybrid optimization of frequency and time domain "
    "gradients",
    source="Huang, Chen, Zheng, Front. Artif. Intell. 8:1628943, 2025; the whole article",
    parts=PARTS,
    claims=CLAIMS,
    tables=tables,
    figures=figures,
    apart=APART,
    regime=regime,
)
