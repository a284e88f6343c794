"""The SMI paper's parts: their trainings, timings and stored data."""

from papers.smi.parts import domains, inference, modern, overhead, runs, sensitivity

PARTS = (
    runs.PART,
    inference.PART,
    overhead.PART,
    modern.PART,
    sensitivity.PART,
    domains.PART,
)
