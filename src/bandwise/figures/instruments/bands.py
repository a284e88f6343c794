"""Gradients by spatial frequency, against white noise."""

from __future__ import annotations

from functools import partial

from bandwise.figures.figure import Figure
from bandwise.figures.instruments.curves import series
from bandwise.figures.instruments.rows import Runs, quotient
from bandwise.figures.words import headline


def _band(runs: Runs, band: str) -> Figure | None:
    return series(
        f"band-{band}",
        runs,
        "spatial",
        lambda row: quotient(row, band, f"white_{band}"),
        f"{headline(band)} spatial frequencies",
        note=f"The {band} band's share of the gradient's energy, over rows and columns of its "
        "matrices, as a multiple of what white noise has there.",
        y="energy / white noise's",
        form=".2f",
        references={"white noise": 1},
    )


# One figure for each band: the share of energy in it over that of white noise, over steps.
low, mid, high = (partial(_band, band=band) for band in ("low", "mid", "high"))
