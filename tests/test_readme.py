"""The README's Python works as it is. test_docs.py checks commands and links."""

import ast
import io
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

import bandwise as bw
from bandwise.figures.tables import study_table
from bandwise.study import compare
from bandwise.study.paired import compare_runs
from bandwise.study.results import Results

README = Path(__file__).parent.parent / "README.md"
if not README.exists():
    pytest.skip("README.md is not beside the tests", allow_module_level=True)


def blocks():
    return re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


def test_the_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "pasted"}
    made = 0
    for statement in ast.parse("\n".join(blocks())).body:
        exec(compile(ast.Module([statement], []), README, "exec"), names)
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "opt":
            made += 1
            check_that_it_trains(names["opt"], names["model"])
    assert made == 7
    rows = bw.Lens.read("lens")
    assert {row["quantity"] for row in rows} == {"temporal", "spatial", "weights"}


def check_that_it_trains(optimizer, model):
    before = model.weight.clone()
    model(torch.randn(5, 16)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    assert not torch.equal(model.weight, before)


def test_the_task_of_ones_own_can_be_compared(tmp_path):
    (source,) = (block for block in blocks() if "class Parity" in block)
    (tmp_path / "my_task.py").write_text(source)
    results = compare(
        f"{tmp_path}/my_task.py:Parity",
        "adamw,smi-adamw:min_ndim=1,nsf:p=0.7",
        steps=20,
        seeds=2,
        jobs=1,
        task_options={"bits": 4},
        out=tmp_path / "out",
        console=Console(quiet=True),
    )
    assert [c.n for c in results.comparisons] == [2, 2, 2]


def test_the_table_of_the_demo_is_that_of_its_stored_results():
    results = Results.load(README.parent / "docs" / "demo")
    groups = [results.runs_of(row.optimizer) for row in results.comparisons]
    assert compare_runs(groups, results.metric, results.direction) == results.comparisons
    printed = io.StringIO()
    Console(file=printed, width=80).print(study_table(results))
    table = "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())
    shown = "\n".join(line.rstrip() for line in README.read_text("utf-8").splitlines())
    assert table in shown
