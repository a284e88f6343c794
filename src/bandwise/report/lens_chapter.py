"""What lenses recorded, as a chapter of a page: figures by subject, and one key for all."""

from __future__ import annotations

from dataclasses import dataclass

from bandwise.drawing.figure import Figure, Line, line
from bandwise.lens.instruments import Runs, sections


@dataclass(frozen=True)
class Chapter:
    """The chapter as the page shows it.

    Attributes:
        key: place, name and looks of every label that is drawn.
        sections: figures by heading.
    """

    key: list[tuple[int, str, Line]]
    sections: dict[str, list[Figure]]

    @classmethod
    def of(cls, runs: Runs) -> Chapter | None:
        """The chapter of these runs; ``None`` if they hold nothing to draw."""
        found = sections(runs)
        if not found:
            return None
        key = [(i, label, line(i)) for i, (label, some) in enumerate(runs.items()) if any(some)]
        return cls(key, found)
