"""The modules that an import loads, and the modules that may import each other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "jinja2",
    "joblib",
    "matplotlib",
    "mlxtend",
    "numpy",
    "pandas",
    "plotly",
    "pooch",
    "pydantic",
    "rich",
    "scipy",
    "sklearn",
    "typer",
}
ROOT = Path(__file__).parents[1]


def imported(statement):
    """The packages that a new interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_import_brings_in_torch_and_nothing_heavy():
    ours = imported("import bandwise")
    assert {"bandwise", "torch"} <= ours
    assert not HEAVY & (ours - imported("import torch"))


def test_the_lens_brings_in_plotly_only_to_draw():
    assert "plotly" not in imported("import bandwise.lens")


def test_import_leaves_the_upper_layers_alone():
    names = "{n for n in sys.modules if n.startswith('bandwise.')}"
    code = f"import sys, bandwise; print(*{names})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert {"bandwise.optim.smi", "bandwise.optim.nsf"} <= found
    assert [name for name in found if not name.startswith("bandwise.optim")] == []
    # Kernels and the code for many devices are imported when they are used.
    assert [name for name in found if "triton" in name or "shard" in name or "layout" in name] == []


def test_names_that_are_imported_when_asked_for_are_listed():
    import bandwise

    assert {"Lens", "SMI", "readings"} <= set(dir(bandwise))
    assert "Any" not in dir(bandwise)


def test_a_lens_without_scipy_says_so_before_the_training():
    code = """
import sys
sys.modules["scipy"] = None
import torch, bandwise as bw
model = torch.nn.Linear(3, 3)
bw.Lens(model, bw.NSF(model.parameters()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.endswith("the lens needs scipy: pip install 'bandwise[study]'\n")


def test_the_optimizers_run_without_the_extras():
    """On a machine without any of them."""
    code = f"""
import sys
for name in {sorted(HEAVY - {"numpy"})}:
    sys.modules[name] = None
import torch, bandwise as bw
param = torch.nn.Parameter(torch.randn(3, 4))
for opt in (bw.SMI(torch.optim.AdamW([param]), 10), bw.NSF([param])):
    param.grad = torch.randn(3, 4)
    opt.step()
    opt.load_state_dict(opt.state_dict())
print("done")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "done\n"


def test_everything_public_is_there():
    import bandwise

    assert all(hasattr(bandwise, name) for name in bandwise.__all__)


@pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="no pyproject.toml, no contract")
def test_a_lower_layer_never_imports_a_higher_one():
    pytest.importorskip("importlinter", reason="import-linter is a development tool")
    import bandwise

    lint = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", lint, "--no-cache"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(Path(bandwise.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout
