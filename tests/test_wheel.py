"""The wheel holds only the product, and the papers use only its public modules."""

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
EVIDENCE = {"papers", "benchmarks"}


def test_the_wheel_holds_one_package():
    build = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    # Any other key could add files.
    assert build == {"targets": {"wheel": {"packages": ["src/bandwise"]}}}
    assert not EVIDENCE & {path.stem for path in (ROOT / "src" / "bandwise").iterdir()}


def test_the_product_never_imports_the_evidence():
    files = sorted((ROOT / "src" / "bandwise").rglob("*.py"))
    assert files
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            assert not EVIDENCE & {name.partition(".")[0] for name in names}, file


def test_the_papers_use_no_private_module():
    for file in sorted((ROOT / "papers").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bandwise"):
                names = [*node.module.split("."), *(alias.name for alias in node.names)]
                assert not [name for name in names if name.startswith("_")], file
