"""Damaged files of the papers' results and of benchmarks are named in one line."""

import json

import papers
import pytest
from benchmarks.__main__ import app as benchmarks_app
from papers.__main__ import app as papers_app
from papers.ledger import rebuild
from papers.paper import Claim, Finding, Paper, Part
from papers.reproduce import reproduce

from bandwise.files import write_json
from test_crashes import damaged, fails, mistyped
from test_study import quiet


def test_a_damaged_part_of_a_paper_is_named(tmp_path, monkeypatch, capsys):
    part = Part("first", "One", lambda context: {"value": 2.0})
    claim = Claim("1", "a", "1", "first", lambda d: Finding(f"{d['value']:.1f}", True))
    made = Paper("smi", "A title", "A source", (part,), (claim,), lambda data: (), lambda data: ())
    monkeypatch.setattr(papers, "load", lambda name: made)
    (path,) = reproduce("smi", out=tmp_path, console=quiet())
    claims = ("claims", path.parent, "--out", tmp_path / "claims.md")
    content = path.read_bytes()
    for spoilt in damaged(content):
        path.write_bytes(spoilt)
        error = fails(monkeypatch, capsys, *claims, app=papers_app)
        assert f"{path} does not hold a part's results" in error
        error = fails(monkeypatch, capsys, "reproduce", "smi", "--out", tmp_path, app=papers_app)
        assert f"{path} does not hold a part's results" in error
    for data in ({}, {"value": "two"}):
        path.write_text(json.dumps({**json.loads(content), "data": data, "crc32": None}))
        with pytest.raises(ValueError, match="its checksum does not fit"):
            rebuild(path.parent, tmp_path / "claims.md")
        unsealed = {key: value for key, value in json.loads(content).items() if key != "crc32"}
        path.write_text(json.dumps({**unsealed, "data": data}))
        error = fails(monkeypatch, capsys, *claims, app=papers_app)
        assert error.startswith(f"error: {path.name} does not hold what its claims need")
    reproduce("smi", out=tmp_path, again=True, console=quiet())
    assert rebuild(path.parent, tmp_path / "claims.md")


def test_a_damaged_benchmark_is_named(tmp_path, monkeypatch, capsys):
    case = {"title": "t", "parameters": 4, "orders": [["a"]], "note": "", "absent": {}}
    case |= {"sweep": None, "finding": None, "added": False}
    case["rows"] = [{"name": "a", "seconds": [1.0], "against": None, "moves": None}]
    whole = {"command": "c", "machine": {}, "cases": [case], "memory": [], "skipped": {}}
    path = tmp_path / "bench.json"
    write_json(path, whole)
    content = path.read_bytes()
    for spoilt in damaged(content):
        path.write_bytes(spoilt)
        error = fails(monkeypatch, capsys, "--redraw", "--out", tmp_path, app=benchmarks_app)
        assert f"{path} is not a benchmark's results" in error
    for spoilt in mistyped(content):
        path.write_bytes(spoilt)
        said = str(path)
        try:
            benchmarks_app(["--redraw", "--out", str(tmp_path)], standalone_mode=False)
        except (ValueError, OSError) as error:
            said = str(error)
        assert str(path) in said
