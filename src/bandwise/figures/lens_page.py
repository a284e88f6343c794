"""What lenses recorded, as a chapter of a page and as a page of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bandwise.figures.figure import Figure, Line, line
from bandwise.figures.instruments import Runs, sections
from bandwise.figures.pages import fill, save
from bandwise.figures.words import plural


@dataclass(frozen=True)
class Chapter:
    """The lens's figures as a page shows them, with one key for all."""

    key: list[tuple[int, str, Line]]  # place, name and looks of every label that is drawn
    sections: dict[str, list[Figure]]  # by heading

    @classmethod
    def of(cls, studies: Mapping[str, Runs]) -> Chapter | None:
        """The chapter of studies by name, side by side; ``None`` if they hold nothing to draw.

        A label looks the same in all studies.
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
        return cls(key, _beside(found) if len(found) > 1 else next(iter(found.values())))


def _beside(studies: Mapping[str, Mapping[str, list[Figure]]]) -> dict[str, list[Figure]]:
    """By heading, the studies' figures of each kind one after another, with the study's name."""
    kinds: dict[str, dict[str, list[Figure]]] = {}
    for place, (name, headings) in enumerate(studies.items()):
        for heading, drawn in headings.items():
            for figure in drawn:
                named = replace(figure, id=f"{figure.id}-{place}", title=f"{name}: {figure.title}")
                kinds.setdefault(heading, {}).setdefault(figure.id, []).append(named)
    return {
        heading: [
            # A figure of several panels needs the whole width, and one alone gets it.
            replace(figure, small=len(same) > 1 and len(list(figure.plot.select_xaxes())) == 1)
            for same in by_kind.values()
            for figure in same
        ]
        for heading, by_kind in kinds.items()
    }


def render_lens(studies: Mapping[str, Runs]) -> str:
    """The page as text; see ``write_lens``."""
    chapter = Chapter.of(studies)
    if chapter is None:
        raise ValueError("the logs hold no rows that the lens's figures are drawn from")
    labels = [label for _, label, _ in chapter.key]
    logs = [rows for runs in studies.values() for some in runs.values() for rows in some if rows]
    steps = max(row["step"] for rows in logs for row in rows)
    names = " and ".join(labels) if len(labels) <= 2 else f"{len(labels)} trainings"
    return fill(
        "lens.html.jinja",
        title=f"{names} through the lens",
        measured=f"{plural(len(logs), 'run')} of up to {plural(steps, 'step')}.",
        several=len(logs) > len(labels),
        chapter=chapter,
    )


def write_lens(studies: Mapping[str, Runs], folder: Path) -> Path:
    """Write every figure of what lenses recorded into ``lens.html`` in a folder.

    Raises:
        ValueError: there is nothing to draw.
    """
    return save(render_lens(studies), folder / "lens.html")
