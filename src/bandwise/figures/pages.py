"""Pages: templates filled and saved, each as one HTML file that needs no network."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from bandwise.figures.figure import line
from bandwise.figures.words import headline, plural
from bandwise.files import replacing


def fill(template: str, package: str = "bandwise.figures", **values: Any) -> str:
    """A page as text, with the values in it. All text in them is escaped.

    Args:
        template: its file in the folder ``templates`` of ``package``.
        package: may extend and import the templates of ``bandwise.figures``.
        values: what the template names.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("bandwise.figures")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # plotly writes "<", ">" and "/" in its JSON as \\u escapes: no label can end the script.
    environment.filters["as_json"] = lambda plot: Markup(plot.to_json())
    environment.filters["neighbours"] = _neighbours
    environment.globals |= {"headline": headline, "plural": plural, "line": line}
    return environment.get_template(template).render(plotlyjs=Markup(get_plotlyjs()), **values)


def save(page: str, path: Path) -> Path:
    """Write a page, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return path


def _neighbours(items: Iterable[Any], attribute: str) -> Iterator[tuple[Any, list[Any]]]:
    """Neighbours with an equal attribute, together."""
    for value, some in itertools.groupby(items, operator.attrgetter(attribute)):
        yield value, list(some)
