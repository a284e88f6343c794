"""Figures from the rows that a lens recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bandwise.lens.quantities.quantity import Row

if TYPE_CHECKING:  # plotly is imported when something is to be drawn
    from bandwise.figures.figure import Figure


def figures(runs: Mapping[str, Sequence[Sequence[Row]]]) -> list[Figure]:
    """Draws what lenses recorded: every figure that the rows hold something for.

    Args:
        runs: the rows of each run, by the label of what it was trained with. Several runs of one
            label, its seeds, become a mean line and a band from the lowest to the highest. Labels
            keep their colour by their order; the first is grey, as a baseline.

    Returns:
        Figures with ``title``, what is seen in words; ``note``, how to read it; and ``plot``, a
        plotly figure.

    Raises:
        TypeError: ``runs`` is not of this shape.
        ModuleNotFoundError: plotly is not installed.

    Examples:
        >>> runs = {"adamw": [Lens.read("a0"), Lens.read("a1")], "sgd": [Lens.read("sgd")]}
        >>> for figure in figures(runs):
        ...     print(figure.title)
        ...     figure.plot.show()
    """
    for label, some in runs.items():
        if not all(isinstance(row, Mapping) for rows in some for row in rows):
            raise TypeError(
                f"runs must map a label to a list of runs, each a list of rows, got for {label!r} "
                "something else: one run's rows go into a list of their own"
            )
    try:
        from bandwise.figures.instruments import sections
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("drawing needs plotly: pip install 'bandwise[study]'") from error
    return [figure for some in sections(runs).values() for figure in some]
