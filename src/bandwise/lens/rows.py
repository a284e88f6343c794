"""The rows of the quantities that the lens measures itself."""

from __future__ import annotations

from collections.abc import Iterable

from bandwise.lens.quantities.decisions import agreeing
from bandwise.lens.quantities.quantity import Row

# What figures are drawn from, in every row of a quantity.
FIGURES = {
    "temporal": {"steps", "frequency", "gain", "response"},
    "spatial": {"energy", "low", "white_low"},
    "weights": {"spectral_norm"},
    "decisions": {"accuracy", "loss", "predicted"},
    "boundary": {"x", "y", "n", "values"},
    "activations": {"overall_average"},
}


def drawable(rows: Iterable[Row]) -> list[Row]:
    """A run's rows, as figures are drawn from them.

    A row that has the name of a quantity without its figures was recorded by the user; it is left
    out. In rows of ``decisions``, ``agreement`` takes the place of ``predicted``: the share of
    examples for which the model predicts what it predicts in the last of these rows.
    """
    found = [row for row in rows if FIGURES.get(row["quantity"], set()) <= row.keys()]
    predictions = [row["predicted"] for row in found if row["quantity"] == "decisions"]
    return [
        {
            **{key: value for key, value in row.items() if key != "predicted"},
            "agreement": agreeing(row["predicted"], predictions[-1]),
        }
        if row["quantity"] == "decisions"
        else row
        for row in found
    ]
