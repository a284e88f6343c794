"""What mkdocs leaves to us: formulas without JavaScript, and pages that lie outside ``docs``."""

import html
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent

# Pages that lie where people look for them in a repository.
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
}
_LINK = re.compile(r"(\]\()(?!\w+:|#)([^)\s#]+)")
_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">(?:\\\((.*?)\\\)|\\\[(.*?)\\\])</\1>', re.DOTALL
)


def on_files(files, config):
    """Add the pages that lie elsewhere, and the files that pages link to as they are."""
    for source, page in PAGES.items():
        if page not in files.src_uris:
            files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for page in list(files.documentation_pages()):
        for _, link in _LINK.findall(page.content_string):
            path = _path(page, link)
            target = _target(path)
            if target not in files.src_uris and (ROOT / path).is_file():
                files.append(File.generated(config, target, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Lead every link to where its file stands in the site."""
    folder = posixpath.dirname(page.file.src_uri) or "."

    def led(match):
        return match[1] + posixpath.relpath(_target(_path(page.file, match[2])), folder)

    return _LINK.sub(led, markdown)


def on_page_content(content, page, config, files):
    """Make MathML of LaTeX: browsers set it themselves."""

    def formula(match):
        latex = html.unescape(match[2] or match[3])
        return convert(latex, display="inline" if match[2] else "block")

    return _FORMULA.sub(formula, content)


def _path(file, link):
    """The file that a link leads to, from the repository's root."""
    source = f"docs/{file.src_uri}"
    if file.generated_by:
        source = next(path for path, page in PAGES.items() if page == file.src_uri)
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))


def _target(path):
    """Where a file of the repository stands in the site."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}"
