"""What the README shows in Python works as it stands there; test_docs.py has commands and links."""

import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

import bandwise as bw
from bandwise.study import compare

README = Path(__file__).parent.parent / "README.md"
if not README.exists():
    pytest.skip("README.md is not beside the tests", allow_module_level=True)


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


def test_the_lines_to_swap_train():
    swap, settings = blocks("python")[:2]
    names = {"bw": bw, "torch": torch, "T": 10}
    for line in filter(None, [*swap.splitlines(), *settings.splitlines()]):
        model = torch.nn.Linear(4, 3)
        names |= {"model": model, "params": model.parameters()}
        names["base"] = torch.optim.AdamW(model.parameters())
        line = line if "=" in line.partition("(")[0] or "import" in line else f"opt = {line}"
        exec(line, names)
        if "opt = " in line:
            before = model.weight.clone()
            model(torch.randn(5, 4)).square().mean().backward()
            names["opt"].step()
            assert not torch.equal(model.weight, before)


def test_the_task_of_ones_own_can_be_compared(tmp_path):
    (source,) = (block for block in blocks("python") if "class Parity" in block)
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


def test_the_lens_watches_a_training_loop(tmp_path, monkeypatch):
    (source,) = (block for block in blocks("python") if "bw.Lens" in block)
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Linear(4, 3)

    def train(model, opt):
        for _ in range(60):
            model(torch.randn(5, 4)).square().mean().backward()
            opt.step()
            opt.zero_grad()

    opt = bw.SMI(torch.optim.AdamW(model.parameters()), 60)
    exec(source, {"bw": bw, "model": model, "opt": opt, "train": train})
    rows = bw.Lens.read("lens")
    assert {row["quantity"] for row in rows} == {"temporal", "spatial", "weights"}
