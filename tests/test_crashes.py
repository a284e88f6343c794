"""Studies that are killed, run out of disk, or find their files damaged.

    python tests/test_crashes.py --kills 50        # SIGKILL at random moments
    python tests/test_crashes.py --operations 1    # SIGKILL at every operation on a file
    python tests/test_crashes.py --flips 1         # a bit of every byte of every file of a run

These commands print what they find. They fail if a result differs or a damaged file is not named.
The tests do the same with smaller numbers.
"""
# ruff: noqa: PT017 -- most damage may do no harm instead of raising.

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from filelock import FileLock

from bandwise import cli
from bandwise.files import read_json
from bandwise.study import DamagedRunError, Results, StudyError, compare, errors
from bandwise.study import run as runs
from bandwise.study.config import RunConfig
from bandwise.study.run_files import load_checkpoint, read_result, read_run
from bandwise.study.training import Training
from test_study import TASK, figures, quiet

OPTIMIZERS = "smi-adamw:min_ndim=1,nsf:p=cyclic(0.7,0.1,10)"
FILES = ("config.json", "metrics.jsonl", "lens.jsonl", "checkpoint.pt", "result.json")


def study(folder, **options):
    """Two runs with a lens, of 24 steps each, in ``folder/out``."""
    task = folder / "line.py"
    if not task.exists():
        task.write_text(TASK)
    return compare(
        f"{task}:Line", OPTIMIZERS, seeds=1, out=folder / "out", jobs=1, lens=True,
        console=quiet(), task_options=options,
    )  # fmt: skip


def told(results):
    """Everything that must be the same, bit for bit: all figures and the lens's rows."""
    data = figures(results)
    for run in data["runs"]:
        run.pop("folder")  # its name depends on the task's path
        run["config"].pop("task")
        run["config"].pop("data")
    return json.dumps(data)


def weights(folder):
    """The final weights of the runs, by optimizer."""
    found = {}
    for path in sorted((folder / "out" / "runs").glob("*/checkpoint.pt")):
        model = torch.load(path, weights_only=True)["model"]
        found[path.parent.name.rpartition("-")[0]] = [t.tolist() for t in model.values()]
    return found


# --- a machine to crash on -----------------------------------------------------------------------


def in_child(function, *arguments, killed_after=None):
    """Run a function in a child process. Return whether it succeeded before it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            function(*arguments)
        except BaseException as error:
            sys.stderr.write(f"{error}\n")
            os._exit(1)
        os._exit(0)
    if killed_after is not None:
        time.sleep(killed_after)
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFEXITED(status)


def killed_at_operation(number, folder):
    """Run a study that kills itself before its file operation of that number."""
    count = 0

    def watch(event, arguments):
        nonlocal count
        if event in ("open", "os.rename", "os.remove", "os.mkdir") and "/out" in str(arguments[0]):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    study(folder)


def crash(kills, operations, seed=0):
    """SIGKILL a study, at random moments or every few file operations, and continue it."""
    random.seed(seed)
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        right, right_weights = told(study(made(home / "right"))), weights(home / "right")
        started = time.monotonic()
        study(made(home / "warm"))
        seconds = time.monotonic() - started

        def same(folder):
            assert told(study(folder)) == right, f"another result in {folder}"
            assert weights(folder) == right_weights
            assert not list(folder.glob("out/runs/*/.*.tmp"))

        done, whole = 0, 0
        folder = made(home / "killed")
        while done < kills:
            if in_child(study, folder, killed_after=random.uniform(0, seconds)):
                same(folder)
                whole += 1
                folder = made(home / f"killed-{whole}")
            else:
                done += 1
        if kills:
            same(folder)
            say(f"{done} kills at random moments, {whole + 1} studies, every result the same")
        number = 1
        while operations:
            folder = made(home / f"operation-{number}")
            if in_child(killed_at_operation, number, folder):
                break
            same(folder)
            number += operations
        if operations:
            say(f"killed before every {operations}. of {number} operations, every result the same")


def made(folder):
    folder.mkdir()
    return folder


def say(text):
    sys.stdout.write(text + "\n")


def script(*words):
    """Run this file in a new process, because forks of a process with threads may hang."""
    done = subprocess.run(
        [sys.executable, __file__, *map(str, words)], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_killed_and_out_of_disk():
    said = script("--kills", 10, "--operations", 12, "--full")
    assert said.count("every result the same") == 3
    assert said.startswith("10 kills at random moments")


def test_a_run_that_another_process_trains_is_waited_for(tmp_path, monkeypatch):
    """A worker may still train after its study was killed. Here a thread is that worker."""
    right = told(study(made(tmp_path / "right")))
    folder = made(tmp_path / "late")
    with monkeypatch.context() as patch:
        patch.setattr(runs, "_StoredRun", lambda *_: 1 / 0)
        with pytest.raises(StudyError, match="2 of 2 runs failed"):
            study(folder)
    path = next((folder / "out" / "runs").iterdir())
    held, waited_for = threading.Event(), threading.Event()
    trained_by = []

    class Watched(FileLock):
        def acquire(self, *args, **kwargs):
            if Path(self.lock_file).parent == path:
                waited_for.set()
            return super().acquire(*args, **kwargs)

    class Counted(runs._StoredRun):
        def train(self):
            trained_by.append(threading.current_thread().name)
            super().train()

    def train_elsewhere():
        with FileLock(path / ".lock"):
            held.set()
            if waited_for.wait(timeout=60):
                Counted(RunConfig(**read_json(path / "config.json")), path).train()

    monkeypatch.setattr(errors, "FileLock", Watched)
    monkeypatch.setattr(runs, "_StoredRun", Counted)
    elsewhere = threading.Thread(target=train_elsewhere, name="elsewhere")
    elsewhere.start()
    assert held.wait(timeout=60)
    assert told(study(folder)) == right
    elsewhere.join()
    assert sorted(trained_by) == ["MainThread", "elsewhere"]


SLEEPS = """
import os, time
from pathlib import Path
from line import Line

class Sleeps(Line):
    def batch(self, seed, step):
        Path(f"worker-{os.getpid()}").touch()
        time.sleep(600)
"""


@pytest.mark.parametrize(
    "work",
    [
        "compare('sleeps.py:Sleeps', 'adamw,sgd', seeds=1, jobs=2)",
        "joblib.Parallel(2)(joblib.delayed(tune)("
        "'sleeps.py:Sleeps', name, {'lr': Range(0.1, 1)}, 1, out=name) for name in ('sgd', 'nsf'))",
    ],
    ids=["compare", "tune"],
)
def test_workers_end_with_a_parent_that_is_killed(tmp_path, work):
    (tmp_path / "line.py").write_text(TASK)
    (tmp_path / "sleeps.py").write_text(SLEEPS)
    code = "import joblib\nfrom bandwise.study import compare\n"
    code += "from bandwise.study.tune import Range, tune\n" + work
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, start_new_session=True)
    try:
        wait_until(lambda: len(list(tmp_path.glob("worker-*"))) == 2, parent)
        workers = [int(path.name.partition("-")[2]) for path in tmp_path.glob("worker-*")]
        assert parent.pid not in workers
        parent.kill()
        parent.wait()
        wait_until(lambda: not any(map(is_alive, workers)))
    finally:
        with suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)


def wait_until(true, process=None):
    deadline = time.monotonic() + 60
    while not true():
        assert process is None or process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(pid):
    """Whether a process exists and is not a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_two_commands_in_one_folder(tmp_path):
    task = tmp_path / "line.py"
    task.write_text(TASK)
    words = ["compare", f"{task}:Line", "--optimizers", "sgd", "--seeds", "1", "--delay", "0.05"]
    words += ["--out", str(tmp_path / "out"), "--jobs", "1"]
    code = "from bandwise.cli import main; main()"
    first = subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.DEVNULL)
    wait_until(lambda: list(tmp_path.glob("out/runs/*/metrics.jsonl")), first)
    with pytest.raises(StudyError, match=r"another command is working in .*out: wait for it"):
        study(tmp_path)
    assert first.wait(timeout=60) == 0
    assert Results.load(tmp_path / "out").steps == 24


# --- damaged files of a run ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return folder, told(study(folder))


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """A study whose two runs stopped at step 14, with checkpoints at step 12."""
    folder = tmp_path_factory.mktemp("unfinished")
    train_step = Training.train_step

    def cut_off(self):
        if self.step >= 14:
            raise ArithmeticError("cut off")
        return train_step(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "train_step", cut_off)
        with pytest.raises(StudyError, match="cut off"):
            study(folder)
    assert len(list(folder.glob("out/runs/*/checkpoint.pt"))) == 2
    return folder


def damages(content, count):
    """Ways to damage a file. ``None`` removes it, and a dict replaces it by a folder."""
    chance = random.Random(len(content))
    for _ in range(count):
        place = chance.randrange(len(content))
        yield content[:place]
        yield (
            content[:place]
            + bytes([content[place] ^ 1 << chance.randrange(8)])
            + content[place + 1 :]
        )
    yield from (b"", None, {}, b"null\n", b"[]\n", b"{}\n", b'{"step": "one"}\n', b"[" * 99_999)
    yield b'{"steps": "x", "diverged": 0, "final": {"val_loss": "y"}, "settings": {}}\n'
    yield bytes(len(content))


def spoil(path, content):
    path.unlink()
    if content == {}:
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("state", "name"),
    # An unfinished run has no result.
    [*(("finished", name) for name in FILES), *(("unfinished", name) for name in FILES[:-1])],
)
def test_a_damaged_file_is_named_or_does_no_harm(state, name, finished, unfinished):
    folder, right = finished
    folder = folder if state == "finished" else unfinished
    out, kept = folder / "out", folder / "kept"
    if not kept.exists():
        shutil.copytree(out, kept)
    for number, content in enumerate(damages(file_of(kept, name).read_bytes(), 4)):
        shutil.rmtree(out)
        shutil.copytree(kept, out)
        path = file_of(out, name)
        other = next(run for run in path.parent.parent.iterdir() if run != path.parent)
        spoil(path, content)
        try:
            assert told(study(folder)) == right, (number, content)
        except StudyError as error:
            assert "1 of 2 runs failed" in str(error)
            assert str(path) in str(error)
            assert "is damaged" in str(error) or "Is a directory" in str(error)
            assert "Traceback" not in str(error)
            # The damaged file is unchanged.
            assert not isinstance(content, bytes) or path.read_bytes().startswith(content)
        # The other run has continued.
        assert read_result(other)["steps"] == 24
    shutil.rmtree(out)
    shutil.copytree(kept, out)


def file_of(out, name):
    return next(iter(sorted(out.glob(f"runs/*/{name}"))))


def flip(folder, step):
    """Flip a bit of every ``step``-th byte of every file of a finished run, and read the file."""
    out = folder / "out"
    results = Results.load(out)
    by_name = {run.folder: run for run in results.runs}
    path = file_of(out, "result.json").parent
    right = by_name[path.relative_to(out).as_posix()]
    config = RunConfig(**{k: v for k, v in right.config.items() if k != "settings"})
    saved = torch.load(path / "checkpoint.pt", weights_only=True)
    counts = {}
    for name in FILES:
        file = path / name
        content = file.read_bytes()
        found = 0
        places = range(0, len(content), step)
        for place in places:
            spoilt = bytearray(content)
            spoilt[place] ^= 1 << place % 8
            file.write_bytes(spoilt)
            try:
                if name == "checkpoint.pt":
                    assert_same(load_checkpoint(file, "cpu"), saved)
                else:
                    assert read_run(config, path) == right, (name, place)
            except DamagedRunError as error:
                assert f"{file} is damaged" in str(error)
                found += 1
        file.write_bytes(content)
        counts[name] = (len(places), found)
    return counts


def assert_same(one, other):
    if isinstance(one, torch.Tensor):
        assert one.numpy().tobytes() == other.numpy().tobytes()
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert one == other


def test_a_flipped_bit_is_found_or_does_no_harm(finished):
    """metrics.jsonl also holds the seconds of steps. A change of any digit is noticed."""
    counts = flip(finished[0], step=23)
    for name in ("metrics.jsonl", "lens.jsonl"):
        assert len(set(counts[name])) == 1
    flipped, found = counts["result.json"]
    assert found > 0.8 * flipped  # the others are blanks


def test_runs_from_before_there_were_checksums_are_read(tmp_path):
    right = told(study(tmp_path))
    for path in tmp_path.glob("out/runs/*/result.json"):
        result = json.loads(path.read_text())
        del result["crc32"], result["files"]
        path.write_text(json.dumps({**result, "lens_bytes": 3}))
    assert told(study(tmp_path)) == right


# --- a full or read-only disk ---------------------------------------------------------------------


def limited(folder, size):
    """Run a study that cannot write a file longer than ``size``."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        study(folder)
    except (StudyError, OSError) as error:
        assert "File too large" in str(error)
        assert "Traceback" not in str(error)
        assert str(folder / "out") in str(error)
        return
    raise AssertionError(f"it got by with {size} bytes a file")


def full():
    with tempfile.TemporaryDirectory() as name:
        right = told(study(made(Path(name) / "right")))
        for size in (0, 100, 1000, 3000, 9000):
            folder = made(Path(name) / str(size))
            (folder / "line.py").write_text(TASK)
            assert in_child(limited, folder, size)
            assert told(study(folder)) == right
    say("files cut off at five sizes, every result the same")


@pytest.fixture
def disk(tmp_path):
    """A separate file system. ``disk(options)`` sets its size or makes it read-only."""
    folder = made(tmp_path / "disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")

    def change(options):
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    change.folder = folder
    yield change
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(disk, finished):
    for kilobytes in (12, 24, 40, 64, 96):
        disk(f"size={kilobytes}k")
        with pytest.raises((StudyError, OSError), match="No space left on device") as caught:
            study(disk.folder)
        assert "Traceback" not in str(caught.value)
    disk("size=10m")
    assert told(study(disk.folder)) == finished[1]


def test_a_disk_for_reading_only(disk, finished, monkeypatch, capsys):
    disk("size=10m")
    study(disk.folder)
    out = disk.folder / "out"
    disk("ro")
    task = f"{disk.folder}/line.py:Line"
    for words in (["compare", task, "--out", out], ["report", out], ["lens", out]):
        error = fails(monkeypatch, capsys, *words)
        assert "Read-only file system" in error
        assert str(out) in error
    disk("rw")
    assert told(study(disk.folder)) == finished[1]


# --- damaged files of finished studies ------------------------------------------------------------


def fails(monkeypatch, capsys, *words, app=cli.app):
    """The one-line error of a command."""
    monkeypatch.setattr(sys, "argv", ["program", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.run(app)
    error = capsys.readouterr().err
    assert ended.value.code == 1
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def damaged(content):
    """Damaged versions of a JSON file: cut off, with a flipped bit, empty, no JSON, no object."""
    yield content[: len(content) // 2]
    yield content.replace(b"1", b"3", 1)
    yield from (b"", b"null", b"[]", b"[" * 99_999, b"\xff\xfe")


def mistyped(content):
    """Versions without a checksum, as older files are, with a missing or mistyped field."""
    data = json.loads(content)
    del data["crc32"]
    for key in data:
        yield json.dumps({**data, key: 3}).encode()
        yield json.dumps({name: value for name, value in data.items() if name != key}).encode()


@pytest.mark.parametrize("command", ["report", "lens"])
def test_damaged_results_are_named(finished, tmp_path, monkeypatch, capsys, command):
    path = tmp_path / "results.json"
    content = (finished[0] / "out" / "results.json").read_bytes()
    for spoilt in damaged(content):
        path.write_bytes(spoilt)
        error = fails(monkeypatch, capsys, command, tmp_path)
        assert f"{path} is not a study's results" in error
    for spoilt in mistyped(content):
        path.write_bytes(spoilt)
        monkeypatch.setattr(sys, "argv", ["bandwise", command, str(tmp_path)])
        try:
            cli.main()
        except SystemExit as ended:
            error = capsys.readouterr().err
            assert not ended.code or (error.startswith("error: ") and str(tmp_path) in error)


def test_damaged_logs_of_a_study_are_named(finished, tmp_path, monkeypatch, capsys):
    shutil.copytree(finished[0] / "out", tmp_path / "out")
    path = file_of(tmp_path / "out", "lens.jsonl")
    content = path.read_bytes()
    for spoilt in damaged(content):
        path.write_bytes(spoilt)
        assert f"{path} is damaged" in fails(monkeypatch, capsys, "lens", tmp_path / "out")


def test_damaged_logs_are_named(finished, tmp_path, monkeypatch, capsys):
    path = tmp_path / "lens.jsonl"
    lines = file_of(finished[0] / "out", "lens.jsonl").read_bytes().split(b"\n")
    for line in (b"{", b"null", b'{"step": "1", "quantity": "x", "tensor": "all"}', b"[" * 99_999):
        path.write_bytes(b"\n".join([lines[0], line, *lines[1:]]))
        assert f"{path}, line 2 is damaged" in fails(monkeypatch, capsys, "lens", tmp_path)
    # A row of a known quantity that no figure can draw.
    row = json.loads(next(line for line in lines if b'"weights"' in line))
    path.write_text(json.dumps(dict.fromkeys(row, "x") | {"step": 1, "quantity": "weights"}) + "\n")
    assert str(tmp_path) in fails(monkeypatch, capsys, "lens", tmp_path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--operations", type=int, default=0)
    parser.add_argument("--flips", type=int, default=0)
    parser.add_argument("--full", action="store_true")
    chosen = parser.parse_args()
    crash(chosen.kills, chosen.operations)
    if chosen.full:
        full()
    if chosen.flips:
        with tempfile.TemporaryDirectory() as home:
            study(Path(home))
            for name, (flipped, found) in flip(Path(home), chosen.flips).items():
                say(f"{name}: {flipped} bits flipped, {found} found, the others without effect")
