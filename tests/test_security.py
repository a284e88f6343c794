"""Nothing in a folder, a report or a download is executed. No download leaves its folder."""

import ast
import hashlib
import html
import io
import json
import pickle
import re
import shutil
import subprocess
import tarfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import papers
import pytest
import torch
from benchmarks import Bench, draw
from papers.ledger import rebuild
from papers.paper import Claim, Finding, Paper, Part
from papers.reproduce import reproduce

import bandwise
from bandwise import tasks
from bandwise.figures.lens_page import render_lens
from bandwise.figures.study_page import render_report, write_report
from bandwise.files import write_json
from bandwise.study import Results, StudyError
from bandwise.tasks.fetch import fetch
from test_crashes import file_of, spoil
from test_crashes import study as two_runs
from test_report import HOSTILE, PLOTLY, Page, lens_rows, strings
from test_study import quiet

SOURCES = sorted(Path(bandwise.__file__).parent.rglob("*.py"))


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_only_the_user_s_files_are_run_and_only_checked_pickles_read():
    """The test lists every call in the sources that could execute its argument."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if name == "torch.load":
                assert "weights_only=True" in ast.unparse(node), path
            elif re.fullmatch(
                r"eval|exec|compile|__import__|(pickle|marshal|shelve|joblib)\.(loads?|open)|"
                r"os\.(system|popen|exec\w*)|subprocess\.\w+|yaml\.\w+|np\.load|"
                r".*\.extract(all)?",
                name,
            ):
                found.append((path.name, name))
    # np.load refuses pickles by default. cifar10's unpickler loads no code.
    assert sorted(set(found)) == [
        ("cifar10.py", "np.load"),
        ("userfile.py", "compile"),
        ("userfile.py", "exec"),
    ]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_checkpoint_runs_nothing(tmp_path):
    two_runs(tmp_path)
    path = file_of(tmp_path / "out", "checkpoint.pt")
    (path.parent / "result.json").unlink()
    torch.save({"model": Evil(tmp_path / "ran")}, path)
    with pytest.raises(StudyError, match=r"checkpoint\.pt is damaged \(UnpicklingError"):
        two_runs(tmp_path)
    spoil(path, pickle.dumps(Evil(tmp_path / "ran")))
    with pytest.raises(StudyError, match=r"checkpoint\.pt is damaged"):
        two_runs(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_report_runs_nothing_of_what_a_study_ran(tmp_path):
    """Results name the user's file. It may come from the same source as the results."""
    two_runs(tmp_path)
    evil = f"from pathlib import Path; Path({str(tmp_path / 'ran')!r}).touch()"
    for name in ("line.py", "out/conftest.py", "out/sitecustomize.py", "out/runs/plotly.py"):
        (tmp_path / name).write_text(evil)
    results = Results.load(tmp_path / "out")
    write_report(results, tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def batches(folder, **files):
    folder.mkdir()
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        content = {b"data": np.zeros((4, 3072), np.uint8), b"labels": [0, 1, 2, 3]}
        (folder / name).write_bytes(files.get(name) or pickle.dumps(content))
    return folder


def test_batches_of_images_run_nothing(tmp_path):
    options = {"images": 20, "batch_size": 2}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        content = {b"data": np.ones((4, 3072), np.uint8), b"labels": [0, 1, 2, 3]}
        path = batches(
            tmp_path / str(protocol), test_batch=pickle.dumps(content, protocol=protocol)
        )
        assert tasks.load("cifar10", {"path": str(path), **options})
    evil = pickle.dumps({b"data": Evil(tmp_path / "ran"), b"labels": []})
    path = batches(tmp_path / "evil", test_batch=evil)
    with pytest.raises(ValueError, match="a batch must hold arrays and plain data"):
        tasks.load("cifar10", {"path": str(path), **options})
    objects = tmp_path / "objects.npz"
    np.savez(objects, train_bytes=np.array([Evil(tmp_path / "ran")], dtype=object))
    with pytest.raises(ValueError, match="does not hold CIFAR-10"):
        tasks.load("cifar10", {"path": str(objects), **options})
    assert not (tmp_path / "ran").exists()


def test_an_archive_writes_nothing(tmp_path):
    """The archive has members above its folder, absolute members, and links out of it."""
    folder = batches(tmp_path / "cifar-10-batches-py")
    archive = tmp_path / "inner" / "cifar.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, folder.name)
        for name in ("../../evil_batch", str(tmp_path / "absolute_batch"), "../up_batch"):
            member = tarfile.TarInfo(name)
            content = pickle.dumps({})
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("link_batch")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    options = {"path": str(archive), "images": 20, "batch_size": 2}
    try:
        tasks.load("cifar10", options)
    except ValueError as error:
        assert str(archive) in str(error)  # noqa: PT017
    assert sorted(tmp_path.rglob("*")) == before


# --- downloads -----------------------------------------------------------------------------------

CONTENT = b"what was to come"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """A server that redirects every request and chooses the file's name."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/file"):
                self.send_response(302)
                self.send_header("Location", "/..%2f..%2fescaped?to=../../x")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Disposition", 'attachment; filename="../../escaped"')
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *_):
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", ["file.txt", "file/..", "file/%2e%2e%2fup", "file?a=../../up"])
def test_a_download_stays_in_its_folder(server, tmp_path, name):
    cache = tmp_path / "deep" / "cache"
    path = fetch(f"{server}/{name}", SHA256, "", cache)
    assert path.parent == cache
    assert path.read_bytes() == CONTENT
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_a_download_is_what_it_was_to_be(server, tmp_path):
    with pytest.raises(ValueError, match="hash"):
        fetch(f"{server}/file.txt", "0" * 64, "", tmp_path)
    assert list(tmp_path.iterdir()) == []
    path = fetch(f"{server}/file.txt", SHA256, "", tmp_path)
    path.write_bytes(b"something else")
    assert fetch(f"{server}/file.txt", SHA256, "", tmp_path).read_bytes() == CONTENT


# --- pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_page_of_the_lens_shows_text(hostile):
    rows = [row | {"step": 50} for row in lens_rows()]
    tensors = [row | {"tensor": hostile, "effective_rank": 2.0} for row in rows]
    raw = render_lens(
        {hostile: {hostile: [[*rows, *tensors]], "b": [rows]}, "other": {"c": [rows]}}
    )
    shows_text(raw, hostile)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_page_of_a_paper_shows_text(hostile, tmp_path, monkeypatch):
    part = Part("first", "One", lambda context: {"name": hostile})
    claim = Claim(hostile, hostile, hostile, "first", lambda d: Finding(d["name"], True))
    made = Paper("smi", hostile, hostile, (part,), (claim,), lambda data: (), lambda data: ())
    monkeypatch.setattr(papers, "load", lambda name: made)
    (path,) = reproduce("smi", out=tmp_path, console=quiet())
    stored = json.loads(path.read_text())
    del stored["crc32"]
    path.write_text(json.dumps({**stored, "command": hostile, "versions": {hostile: hostile}}))
    ledger, page = rebuild(path.parent, tmp_path / "claims.md")
    shows_text(page.read_text("utf-8"), hostile)
    assert "<" not in ledger.read_text("utf-8")
    assert html.unescape(ledger.read_text("utf-8")).count(hostile.replace("|", "\\|")) > 4


def shows_text(raw, hostile):
    raw = raw.replace(PLOTLY, "")
    if "<" in hostile:
        assert hostile not in raw
    page = Page(raw)
    assert hostile in page.text
    assert page.tags.count("script") == page.tags.count("figure") + 2
    assert "img" not in page.tags
    # Plotly may read only our tags.
    words = [word for data in page.data for word in strings(json.loads(data))]
    ours = re.compile("<br>|<extra></extra>")
    assert not [word for word in words if "<" in ours.sub("", word)]


def test_a_picture_of_a_benchmark_shows_text(tmp_path):
    hostile = HOSTILE[1] + "--><script>alert(9)</script>"
    case = {"title": hostile, "orders": [["a"]], "note": hostile, "absent": {hostile: hostile}}
    case |= {"sweep": "sweep", "finding": None, "added": False}
    rows = [{"name": hostile, "seconds": [1.0], "against": None, "moves": None}]
    machine = dict.fromkeys(("device", "processor", "threads", "torch"), hostile)
    data = {"command": hostile, "machine": machine, "memory": [], "skipped": {hostile: hostile}}
    data["cases"] = [{**case, "rows": rows, "parameters": size} for size in (4, 8)]
    write_json(tmp_path / "bench.json", data)
    (picture,) = draw(Bench.load(tmp_path / "bench.json"), tmp_path)
    assert "<script>alert(9)" not in picture.read_text("utf-8")


BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
def test_a_browser_runs_nothing(tmp_path):
    """The page as a browser shows it, with its figures."""
    results = two_runs(tmp_path)
    owned = "document.documentElement.dataset.owned=1"
    for hostile in (
        f"</script><script>{owned}</script>",
        f"\"'><img src=x onerror={owned}><svg onload={owned}>",
        f'<a href="javascript:{owned}">x</a><!--',
    ):
        evil = replace(
            results,
            task=hostile,
            command=hostile,
            comparisons=[replace(c, optimizer=c.optimizer + hostile) for c in results.comparisons],
            runs=[
                replace(
                    run,
                    optimizer=run.optimizer + hostile,
                    evals=[row | {f"val_{hostile}": 1.0} for row in run.evals],
                )
                for run in results.runs
            ],
        )
        page = tmp_path / "page.html"
        page.write_text(render_report(evil, tmp_path), encoding="utf-8")
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000"]
        words += [f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
        dom = subprocess.run([BROWSER, *words], capture_output=True, text=True, timeout=120).stdout
        assert "main-svg" in dom  # the figures were drawn
        assert "data-owned" not in dom
        assert not re.search("<a [^>]*javascript:", dom)
