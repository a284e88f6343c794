"""The SMI paper's parts: what is trained and timed, and what is stored of it."""

from papers.smi.parts import domains, inference, modern, overhead, runs, sensitivity

PARTS = (
    runs.PART,
    inference.PART,
    overhead.PART,
    modern.PART,
    sensitivity.PART,
    domains.PART,
)
