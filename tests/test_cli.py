"""The command line, from outside."""

import os
import pty
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bandwise import cli
from bandwise.figures.lens_page import Chapter, write_lens
from bandwise.figures.lens_runs import runs_of_folders
from bandwise.lens import Lens
from bandwise.study import Results, compare
from bandwise.study.compare import recorded_command
from bandwise.study.plan import configure

SLOW = """
import time
import torch
from bandwise.tasks import Recipe, Task, generator

class Slow(Task):
    name = "slow"
    recipe = Recipe(steps=60, lr=1e-2, evals=30)

    def __init__(self, delay=0.05, width: int = 2):
        self.delay, self.width = delay, width

    def model(self):
        return torch.nn.Linear(2, self.width)

    def batch(self, seed, step):
        time.sleep(self.delay)
        return torch.randn(4, 2, generator=generator(seed, step))

    def loss(self, model, batch):
        return model(batch).square().mean()

    def evaluate(self, model, split):
        return {"loss": model(torch.ones(1, 2)).square().mean().item()}
"""


@pytest.fixture
def slow(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    return f"{tmp_path}/slow.py:Slow"


def command(*words, **kwargs):
    code = "from bandwise.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        start_new_session=True,
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kwargs},
    )


def run(*words):
    process = command(*words)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_compare_and_report(slow, tmp_path):
    out = tmp_path / "out"
    status, table, progress = run(
        "compare", slow, "--optimizers", "adamw,nsf:p=0.7", "--seeds", 2, "--steps", 6, "--jobs", 1,
        "--delay", 0, "--width=3", "--out", out,
    )  # fmt: skip
    assert status == 0, progress
    assert "nsf:p=0.7" in table
    assert str(out / "report.html") in table
    assert "[4/4] nsf:p=0.7, seed 1: " in progress
    assert "\x1b" not in table + progress  # plain when not a terminal
    assert {p.name for p in out.iterdir()} >= {"results.json", "results.csv", "report.html"}
    (out / "report.html").unlink()
    status, again, _ = run("report", out)
    assert (status, again) == (0, table)
    assert (out / "report.html").exists()


def test_compare_through_the_lens(slow, tmp_path):
    words = ("compare", slow, "--steps", 6, "--jobs", 1, "--delay", 0, "--out", tmp_path)
    for lens, logs in ((), 0), (("--lens",), 2):
        status, _, err = run(*words, *lens, "--seeds", 1, "--optimizers", "adamw,nsf")
        assert status == 0, err
        assert len(list(tmp_path.glob("runs/*/lens.jsonl"))) == logs
        assert "finished already" not in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("compare", "digitz"), "there is no task 'digitz': choose one of shakespeare-char"),
        (("compare", "digits", "--sedes", "3"), "has no option 'sedes'; its options are: batch"),
        (("compare", "digits", "--width"), "option --width needs a value"),
        (("compare", "digits", "--", "--lr", "3"), "has no option 'lr'; its options are: batch"),
        (("compare", "digits", "3"), "cannot read '3'"),
        (("compare", "digits", "--optimizers", "adamv"), "optimizer 'adamv': name must be one"),
        (("compare", "no/file.py:X"), "there is no file"),
        (("report", "nowhere"), "run `bandwise compare` first"),
        (("lens", "nowhere"), "there is no folder nowhere"),
    ],
)
def test_an_error_is_one_message(words, says):
    status, out, err = run(*words)
    assert status == 1
    assert says in err
    assert "Traceback" not in err + out


# Task options with names of the study's options, and values that look like options.
TAKES = """
from bandwise.tasks import Recipe, Task

class Takes(Task):
    recipe = Recipe(steps=4, lr=0.1)
    name = "takes"

    def __init__(self, lr: float = 1.0, name: str = "", out: str | None = None, any=None,
                 betas: tuple[float, ...] = (), help: int | str = 0, table: dict[str, list] = {},
                 deep=False):
        pass

    def model(self):
        import torch
        return torch.nn.Linear(2, 2)

    batch = loss = evaluate = None
"""
SHORT = st.one_of(
    st.text(max_size=5),
    st.sampled_from(
        ["", "-x", "--x", "--lr", "-h", "--", "=", "5", "'5'", '"5"', "null", "True", "(1,)", "\0"]
    ),
)
# pydantic accepts only text that UTF-8 can encode.
TEXT = SHORT.filter(lambda text: text.encode("utf-8", "ignore").decode() == text)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "lr": st.floats(allow_nan=False),
        "name": TEXT,
        "out": st.none() | TEXT,
        "any": PLAIN,
        "deep": st.booleans(),
        "betas": st.lists(st.floats(allow_nan=False), max_size=3),
        "help": st.integers() | TEXT,
        "table": st.dictionaries(TEXT, st.lists(PLAIN, max_size=2), max_size=2),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    OPTIONS,
    st.floats(0, 1e9),
    st.sampled_from(["adamw", "sgd:lr=0.5,momentum=0.1,smi-adamw:q=0.5", "nsf:p=cyclic(1,0,5)"]),
    st.booleans(),
)
@example({"lr": 3.0, "name": "--x", "out": ""}, 0.1, "adamw", True)
def test_the_recorded_command_reads_back_to_the_same_study(
    tmp_path_factory, options, lr, optimizers, lens
):
    file = tmp_path_factory.getbasetemp() / "takes.py"
    file.write_text(TAKES)
    kwargs = {"steps": 3, "lr": lr, "device": "cpu", "lens": lens, "task_options": options}
    _, configs = configure(f"{file}:Takes", optimizers, range(2), **kwargs)
    command = recorded_command(configs, file.parent)
    seen = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "compare", lambda **read: seen.update(read))
        patch.setattr(cli, "_show", lambda results, folder: None)
        cli.app(shlex.split(command)[1:], standalone_mode=False)
    read = {key: seen[key] for key in kwargs}
    _, again = configure(seen["task"], seen["optimizers"], range(seen["seeds"]), **read)
    assert [c.folder for c in again] == [c.folder for c in configs]
    assert seen["out"] == file.parent


@pytest.mark.parametrize("name", ["a=b.py", "it's.py", "(.py"])
def test_optimizers_that_a_list_cannot_hold_are_refused(tmp_path, monkeypatch, name):
    """The recorded command holds all optimizers in one list."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("from torch.optim import SGD as Mine\n")
    with pytest.raises(ValueError, match=r"told apart in a list|cannot read the options of"):
        compare("digits", ["adamw", f"{name}:Mine", "sgd"], out=tmp_path / "out")


def record(folder, tensors=("weight",)):
    """The log of a lens around a few steps."""
    model = torch.nn.ParameterDict({name: torch.nn.Parameter(torch.ones(4, 6)) for name in tensors})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Lens(model, optimizer, every=20, out=folder):
        for _ in range(40):
            for param in model.values():
                param.grad = torch.randn(4, 6)
            optimizer.step()
    return folder


def test_lens_draws_logs_side_by_side(tmp_path):
    first, second = record(tmp_path / "first"), record(tmp_path / "second")
    status, table, err = run("lens", first, second)
    assert status == 0, err
    assert [line.split()[0] for line in table.splitlines()[5:7]] == ["first", "second"]
    assert f"Lens: {first / 'lens.html'}" in table
    measured = "Last measured: temporal at step 40, spatial at step 40, weights at step 40."
    assert measured in " ".join(table.split())
    page = (first / "lens.html").read_text()
    assert "first and second through the lens" in page
    assert not (second / "lens.html").exists()


def test_folders_of_the_same_name_are_told_apart(tmp_path):
    folders = [record(tmp_path / name / "lens") for name in ("a", "b")]
    (studies,) = runs_of_folders(folders).values()
    assert list(studies) == [f"lens ({folder})" for folder in folders]


def test_lens_draws_a_study_by_optimizer(slow, tmp_path):
    words = ("compare", slow, "--optimizers", "adamw,sgd", "--seeds", 2, "--steps", 3, "--jobs", 1)
    assert run(*words, "--delay", 0, "--out", tmp_path)[0] == 0
    with pytest.raises(ValueError, match=r"no run with a lens .* run `bandwise compare` with --le"):
        runs_of_folders([tmp_path])
    results = Results.load(tmp_path)
    for trained in results.runs:
        rows = Lens.read(record(tmp_path / trained.folder))
        trained.lens.extend(row for row in rows if row["tensor"] == "all")
    results.save(tmp_path)
    ((task, runs),) = runs_of_folders([tmp_path]).items()
    assert task == results.task
    assert {label: len(some) for label, some in runs.items()} == {"adamw": 2, "sgd": 2}
    seen = {(row["quantity"], row["tensor"]) for row in runs["sgd"][0]}
    assert {("evaluation", "all"), ("temporal", "all"), ("temporal", "weight")} <= seen
    write_lens({task: runs}, tmp_path)
    assert "adamw and sgd through the lens" in (tmp_path / "lens.html").read_text()


def test_studies_stand_side_by_side_and_a_label_looks_the_same_in_all(tmp_path):
    rows = {name: Lens.read(record(tmp_path / name)) for name in ("sgd", "adam", "nsf")}
    studies = {
        "one": {name: [rows[name]] for name in ("sgd", "adam")},
        "two": {name: [rows[name]] for name in ("nsf", "adam")},
    }
    chapter = Chapter.of(studies)
    assert [label for _, label, _ in chapter.key] == ["sgd", "adam", "nsf"]
    figures = [figure for some in chapter.sections.values() for figure in some]
    assert len({figure.id for figure in figures}) == len(figures)
    first, second = figures[:2]
    assert first.title.startswith("one: ")
    assert second.title.startswith("two: ")
    assert (first.id, second.id) == ("lens-gain-0", "lens-gain-1")
    assert first.small
    colours = [
        {trace.name: trace.line.color for trace in figure.plot.data if trace.meta == "mean"}
        for figure in (first, second)
    ]
    assert colours[0]["adam"] == colours[1]["adam"]
    assert colours[0].keys() == {"sgd", "adam"}


def test_logs_that_cannot_be_drawn_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no log .*lens\.jsonl"):
        runs_of_folders([tmp_path])
    log = record(tmp_path / "log") / "lens.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    for damage in ("{half", "[1]", '{"step": 1}'):
        log.write_text(lines[0] + damage + "\n" + lines[1])
        with pytest.raises(ValueError, match=r"lens\.jsonl, line 2 is damaged"):
            runs_of_folders([log.parent])
    log.write_text("")
    with pytest.raises(ValueError, match=r"lens\.jsonl holds no rows yet"):
        runs_of_folders([log.parent])
    log.write_text('{"step": 1, "quantity": "my own", "tensor": "all", "x": 1}\n')
    with pytest.raises(ValueError, match="hold no rows that the lens's figures"):
        write_lens(runs_of_folders([log.parent]), tmp_path)


@pytest.mark.parametrize("out", ["", "a_file", "a_file/below"])
def test_a_folder_that_is_none_is_refused(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    status, _, err = run("compare", "two-moons", f"--out={out}")
    assert (status, err) == (1, f"error: --out must be a folder, got {out!r}\n")


def test_list_shows_a_task_s_options_and_recipe(slow):
    _, listed, _ = run("list", "digits")
    assert listed.startswith("options: batch_size=64, width=128\n")
    assert "steps=3000, lr=0.002, warmup=0.05" in listed
    _, listed, _ = run("list", slow)
    assert listed.startswith("options: delay=0.05, width=2\n")
    assert "steps=60, lr=0.01" in listed
    status, _, err = run("list", "digitz")
    assert (status, err[:32]) == (1, "error: there is no task 'digitz'")


def test_list_and_version():
    _, listed, _ = run("list")
    assert "mnist-5k" in listed
    assert "nsf" in listed
    status, version, _ = run("--version")
    assert (status, version.count(".")) == (0, 2)


@pytest.mark.parametrize("jobs", [1, 2])
def test_control_c_stops_cleanly_and_the_command_goes_on(slow, tmp_path, jobs):
    """Send SIGINT to the whole process group, as a terminal does."""
    words = ("compare", slow, "--seeds", 2, "--jobs", jobs, "--out", tmp_path / "out")
    process = command(*words)
    deadline = time.monotonic() + 90
    while not list((tmp_path / "out").glob("runs/*/checkpoint.pt")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The same command goes on from where it was." in err
    assert "Traceback" not in out + err
    status, table, err = run(*words)
    assert status == 0, err
    assert "smi-adamw" in table


def test_a_terminal_gets_a_live_line_a_run(slow, tmp_path):
    main, terminal = pty.openpty()
    process = command(
        "compare", slow, "--seeds", 1, "--jobs", 1, "--out", tmp_path / "out",
        stderr=terminal, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(terminal)
    seen = b""
    while True:
        try:
            piece = os.read(main, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        seen += piece
    process.communicate(timeout=60)
    os.close(main)
    assert process.returncode == 0
    assert b"steps/s" in seen
    assert b"loss" in seen
