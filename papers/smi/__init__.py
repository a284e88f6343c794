"""Huang, Chen, Zheng, "Spectral momentum integration", 2025, rerun."""

from __future__ import annotations

from papers.paper import Paper
from papers.smi import domains, inference, optimizers, overhead, runs, sensitivity
from papers.smi.claims import CLAIMS
from papers.smi.figures import figures
from papers.smi.tables import tables

PAPER = Paper(
    name="smi",
    title="Spectral momentum integration: hybrid optimization of frequency and time domain "
    "gradients",
    source="Huang, Chen, Zheng, Front. Artif. Intell. 8:1628943, 2025; the whole article",
    parts=(
        runs.PART,
        inference.PART,
        overhead.PART,
        optimizers.PART,
        sensitivity.PART,
        domains.PART,
    ),
    claims=CLAIMS,
    tables=tables,
    figures=figures,
)
