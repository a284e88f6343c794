"""Any typed text and any file gives a result, or an error that says what is wrong.

HYPOTHESIS_PROFILE=long pytest tests/test_fuzz.py     # 200 times as many examples
"""
# ruff: noqa: PT017 -- whatever is made up may be right.

import inspect
import json
import os
import pickle
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from bandwise import cli, tasks, userfile
from bandwise.files import from_json, read_json, to_json, write_json
from bandwise.lens import log
from bandwise.study import by_name, spec
from bandwise.study.run_files import read_metrics
from bandwise.tasks import Recipe, Task
from jpegs import write_jpegs

TIMES = int(os.environ.get("BANDWISE_FUZZ", "1"))


def fuzz(examples):
    return settings(
        max_examples=examples * TIMES,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


# --- typed texts ----------------------------------------------------------------------------------

NAMES = st.sampled_from(
    ["adamw", "nsf", "smi-adamw", "smi-", "torch.optim.Adam", "a.py:f", "", "."]
)
KEYS = st.sampled_from(["p", "lr", "betas", "alpha", "q", "eps", "fused", "lambda", "é", "1"])
VALUES = st.recursive(
    st.one_of(
        st.integers().map(str),
        st.floats().map(str),
        st.sampled_from(["1e999", "9" * 400, "None", "True", "bfloat16", "x", "-", "1j", "'a'"]),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"({','.join(items)})"),
        st.tuples(st.sampled_from(["cyclic", "cosine", "linear", "constant", "f"]), inner).map(
            lambda call: f"{call[0]}({call[1]})"
        ),
    ),
    max_leaves=5,
)
OPTIONS = st.lists(st.tuples(KEYS, VALUES).map("=".join), max_size=3).map(",".join)
SPECS = st.one_of(
    st.text(max_size=40),
    st.lists(st.tuples(NAMES, OPTIONS).map(":".join), max_size=3).map(",".join),
)


@fuzz(300)
@given(SPECS)
@example("nsf:p=1)(q=2")  # was read, without p
@example("nsf:p=1).x(q=2")
@example("adamw:lr=" + "-" * 10_000 + "1")
@example("adamw:lr=" + "(" * 10_000)
@example("adamw:lr=" + "9" * 10_000)
@example("adamw:x='\\0'")
@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_specs(text):
    try:
        found = spec.parse_list(text)
    except ValueError as error:
        assert str(error)
        return
    for one in found:
        # No written option is lost.
        assert sum(text.count(name) for name in one.options) >= len(one.options)
        assert one.text in text
        assert spec.parse(one.text) == one or "nan" in text


def test_no_option_is_left_out():
    for text in ("nsf:p=1)(q=2", "nsf:p=1).x(q=2", "nsf:p=1)[0](q=2"):
        with pytest.raises(ValueError, match="write key=value,key=value"):
            spec.parse(text)


PARAMETERS = sorted(
    {name for cls in by_name._SHORT.values() for name in inspect.signature(cls).parameters}
    - {"params", "self"}
    | {"alpha", "q", "beta", "p", "scale", "preset", "min_ndim", "refresh_every", "period"}
)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20),
    st.just(10**400),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.floats(0, 1), max_size=3).map(tuple),
    st.sampled_from([torch.bfloat16, torch.int8]),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@fuzz(150)
@given(
    st.sampled_from([*by_name.names(), "smi-adamw", "smi-sgd", "smi-nsf", "torch.zeros", "os.x"]),
    st.dictionaries(st.sampled_from(PARAMETERS), ODD, max_size=3),
)
@example("adamw", {"betas": (0.9,)})  # was an IndexError
@example("adamw", {"foreach": True, "fused": True})  # was a RuntimeError
@example("nsf", {"p": 10**400})  # was an OverflowError
@example(".a.b", {})
def test_optimizers(name, options):
    named = [("w", torch.nn.Parameter(torch.ones(3, 4))), ("b", torch.nn.Parameter(torch.ones(4)))]
    try:
        made = by_name.build(spec.Spec(name, name, options), named, 1e-3, Recipe(10, 1e-3))
    except ValueError as error:
        assert str(error).startswith(f"optimizer {name!r}: ")
        return
    assert isinstance(made, torch.optim.Optimizer)


TASKS = [*tasks.names(), "papers.smi.tasks.eeg.Eeg"]
TASKS.remove("cifar10")


@fuzz(60)
@given(st.data())
@pytest.mark.filterwarnings("ignore")
def test_tasks(data):
    """Values are small. The limits of the machine's memory are not tested here."""
    name = data.draw(st.sampled_from(TASKS))
    known = inspect.signature(tasks.find(name)).parameters
    keys = st.sampled_from([*known, "unknown"])
    options = data.draw(st.dictionaries(keys, ODD, max_size=2))
    # No file of that name, no download.
    assume(not isinstance(options.get("corpus"), str))
    try:
        task = tasks.load(name, options)
        with torch.random.fork_rng():
            model = task.model()
        assert task.loss(model, task.batch(0, 1)).ndim == 0
    except (ValueError, TypeError, OSError) as error:
        assert str(error)


@fuzz(100)
@given(st.text(max_size=30))
@example("\0.py:A")
@example("x" * 5000 + ".py:A")
@example("/dev/zero.py:A")
@example(".py:A")
@example("/.py:A")
def test_task_names(text):
    try:
        tasks.load(text)
    except (ValueError, OSError) as error:
        assert str(error)
    else:
        assert text in tasks.names()


@fuzz(100)
@given(st.lists(st.text(max_size=12)))
@example(["--a=" + "[" * 5000])
def test_words_of_the_command_line(words):
    try:
        options = cli._task_options(words)
    except ValueError as error:
        assert "task's options" in str(error) or "needs a value" in str(error)
    else:
        assert len(options) <= len(words)


# --- files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


SOURCES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        ["import sys; sys.exit(0)", "raise SystemExit", "1/0", "import nothing_of_this_name",
         "(" * 1000, "def A(): A()\nA()", "A = 3", "class A: pass", "raise MemoryError", "\0"]
    ).map(str.encode),
)  # fmt: skip


@fuzz(60)
@given(SOURCES)
@example(b"import sys; sys.exit(0)")  # ended the command without a message
@example(b":\x80")  # was a UnicodeDecodeError
@example(b"from " + b"." * 99 + b" import a")  # was an IndexError
@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
def test_files_of_the_user_s(folder, source):
    path = folder / "mine.py"
    path.write_bytes(source)
    try:
        found = userfile.load(f"{path}:A")
    except userfile.UserFileError as error:
        assert str(path) in str(error)
    else:
        assert hasattr(found.value, "__class__")
    with pytest.raises(ValueError, match=r"mine\.py"):
        tasks.load(f"{path}:A")


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@fuzz(200)
@given(st.dictionaries(st.text(max_size=6), JSON, max_size=4))
def test_json_comes_back(folder, data):
    # {"float": …} stands for numbers that JSON lacks.
    assume('"float"' not in json.dumps(data))
    assume("crc32" not in data)
    assert to_json(from_json(to_json(data))) == to_json(data)
    write_json(folder / "data.json", data)
    assert to_json(read_json(folder / "data.json")) == to_json(data)


@fuzz(300)
@given(st.dictionaries(st.sampled_from("abc"), JSON, min_size=1), st.data())
def test_a_spoilt_byte_of_json_is_found(folder, data, drawn):
    path = folder / "spoilt.json"
    assume('"float"' not in json.dumps(data))
    write_json(path, data)
    content = bytearray(path.read_bytes())
    place = drawn.draw(st.integers(0, len(content) - 1))
    content[place] = drawn.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        read = read_json(path)
    except ValueError as error:
        assert str(error)
    else:
        # Blanks, another spelling of a number, or the checksum's name.
        assert to_json({key: read[key] for key in data}) == to_json(data)


@fuzz(200)
@given(st.one_of(st.binary(max_size=80), JSON.map(json.dumps).map(str.encode)))
@example(b"[" * 99_999)
@example(b'{"float": "x"}')
@example(b'{"float": []}')
@example(b'{"crc32": 0}')
@example(b"9" * 5000)
def test_anything_as_json(folder, content):
    (folder / "any.json").write_bytes(content)
    try:
        read_json(folder / "any.json")
    except ValueError as error:
        assert str(error)


ROW = st.fixed_dictionaries(
    {"step": st.integers() | st.text(max_size=2), "quantity": JSON, "tensor": st.just("all")},
    optional={"x": JSON},
).map(json.dumps)


@fuzz(200)
@given(st.lists(st.one_of(ROW.map(str.encode), st.binary(max_size=30)), max_size=5))
@example([b'{"step": 1}', b"3", b""])
@example([b"[" * 99_999, b""])
def test_anything_as_logs(folder, lines):
    for name in ("lens.jsonl", "metrics.jsonl"):
        (folder / name).write_bytes(b"\n".join(lines))
    for read in (log.read, read_metrics, lambda path: log.kept(path, 3)):
        try:
            rows = read(folder)
        except ValueError as error:
            assert "line" in str(error)
        else:
            assert rows is not None


@fuzz(100)
@given(st.binary(max_size=3000))
def test_anything_as_a_corpus(folder, content):
    path = folder / "text.txt"
    path.write_bytes(content)
    try:
        task = tasks.load("shakespeare-char", {"corpus": str(path)})
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert isinstance(task, Task)


@pytest.fixture(scope="module")
def images():
    """Whole files of 20 images, by the kind to damage: a batch, its archive, a file of JPEGs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "cifar-10-batches-py"
        folder.mkdir()
        for batch in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
            content = {b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 2, 3]}
            (folder / batch).write_bytes(pickle.dumps(content))
        archive, jpegs = Path(name) / "cifar.tar.gz", Path(name) / "cifar.npz"
        with tarfile.open(archive, "w:gz") as file:
            file.add(folder, folder.name)
        write_jpegs(jpegs, train=20, test=4)
        given_path = {folder / "data_batch_1": folder, archive: archive, jpegs: jpegs}
        yield [(path, path.read_bytes(), whole) for path, whole in given_path.items()]


@fuzz(100)
@given(st.integers(0, 2), st.floats(0, 1, exclude_max=True), st.integers(0, 255), st.booleans())
@example(1, 0.37853218641349123, 2, False)  # was a BadGzipFile, which names no file
@pytest.mark.filterwarnings("ignore")
def test_damaged_images(images, kind, part, byte, cut_off):
    path, content, given_path = images[kind]
    place = int(part * len(content))
    rest = b"" if cut_off else content[place + 1 :]
    path.write_bytes(content[:place] + bytes([byte]) + rest)
    try:
        task = tasks.load("cifar10", {"path": str(given_path), "images": 20, "batch_size": 2})
    except ValueError as error:
        assert str(given_path) in str(error)
    else:
        assert task.batch(0, 1)[0].shape == (2, 3, 32, 32)
    finally:
        path.write_bytes(content)
