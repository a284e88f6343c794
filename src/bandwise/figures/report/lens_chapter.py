"""What lenses recorded, as a chapter of a page: figures by subject, and one key for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bandwise.figures.figure import Figure, Line, line
from bandwise.figures.instruments import Runs, sections


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
    def of(cls, studies: Mapping[str, Runs]) -> Chapter | None:
        """The chapter of studies by name, side by side; ``None`` if they hold nothing to draw.

        A label looks the same in all of them.
        """
        labels = list(dict.fromkeys(label for runs in studies.values() for label in runs))
        found = {
            name: sections({label: runs.get(label, []) for label in labels})
            for name, runs in studies.items()
        }
        if not any(found.values()):
            return None
        seen = {label for runs in studies.values() for label, some in runs.items() if any(some)}
        key = [(i, label, line(i)) for i, label in enumerate(labels) if label in seen]
        if len(found) == 1:
            return cls(key, next(iter(found.values())))
        return cls(key, _beside(found))


def _beside(studies: Mapping[str, Mapping[str, list[Figure]]]) -> dict[str, list[Figure]]:
    """By heading, the figures of one kind after one another, each under its study's name."""
    kinds: dict[str, dict[str, list[Figure]]] = {}
    for place, (name, headings) in enumerate(studies.items()):
        for heading, figures in headings.items():
            for figure in figures:
                same = kinds.setdefault(heading, {}).setdefault(figure.id, [])
                same.append(
                    replace(figure, id=f"{figure.id}-{place}", title=f"{name}: {figure.title}")
                )
    return {
        heading: [
            # One of several panels needs the whole width, and one alone has it.
            replace(figure, small=len(same) > 1 and len(list(figure.plot.select_xaxes())) == 1)
            for same in by_kind.values()
            for figure in same
        ]
        for heading, by_kind in kinds.items()
    }
