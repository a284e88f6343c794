"""Pages: templates filled and saved, each as one HTML file that needs no network."""

from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from bandwise.figures.figure import line
from bandwise.figures.words import headline, plural
from bandwise.files import replacing


def fill(template: str, package: str = "bandwise.figures", **values: Any) -> str:
    """A page as text: a template with the values that it names. All text in them is escaped.

    A template of another package may extend and import those of ``bandwise.figures``.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("bandwise.figures")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"headline": headline, "plural": plural, "line": line}
    return environment.get_template(template).render(plotlyjs=Markup(get_plotlyjs()), **values)


def save(page: str, path: Path) -> Path:
    """Write a page, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return path
