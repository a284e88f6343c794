"""Pages: templates filled and saved, each one HTML file that needs no network."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from bandwise.files import replacing


def fill(template: str, **values: Any) -> str:
    """A template of ``templates/`` as text, with the values in it; all text in them is escaped."""
    environment = Environment(
        loader=PackageLoader("bandwise.figures.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # plotly writes "<", ">" and "/" in its JSON as \\u escapes: no label can end the script.
    environment.filters["as_json"] = lambda plot: Markup(plot.to_json())
    environment.filters["neighbours"] = _neighbours
    return environment.get_template(template).render(plotlyjs=Markup(get_plotlyjs()), **values)


def save(page: str, path: Path, name: str) -> Path:
    """Write a page, whole or not at all; in a folder that exists already under ``name``."""
    if path.is_dir():
        path /= name
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return path


def _neighbours(items: Iterable[Any], attribute: str) -> Iterator[tuple[Any, list[Any]]]:
    """Neighbours with an equal attribute, together."""
    for value, some in itertools.groupby(items, operator.attrgetter(attribute)):
        yield value, list(some)
