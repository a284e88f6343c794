"""The HTML page of what lenses recorded: one file that needs no network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from bandwise.figures.instruments import Runs
from bandwise.figures.report.lens_chapter import Chapter
from bandwise.figures.report.rendering import fill, save
from bandwise.figures.words import plural


def write_lens(studies: Mapping[str, Runs], path: str | os.PathLike[str]) -> Path:
    """Write every figure of what lenses recorded as one HTML file.

    The file appears whole or not at all.

    Args:
        studies: the rows of each run, by study and label; several studies stand side by side.
        path: the file to write; in a folder that exists already, ``lens.html``.

    Returns:
        The path of the file.

    Raises:
        ValueError: there is nothing to draw.
    """
    return save(render_lens(studies), Path(path), "lens.html")


def render_lens(studies: Mapping[str, Runs]) -> str:
    """The page as text."""
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
