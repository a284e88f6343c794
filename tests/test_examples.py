"""The scripts in examples/ train, resume to the same weights, and log the optimizers' readings."""

import csv
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"
if not EXAMPLES.exists():
    pytest.skip("examples/ is not beside the tests", allow_module_level=True)


def run(script, out):
    environment = {
        **os.environ,
        "WANDB_MODE": "offline",
        "HF_HUB_OFFLINE": "1",  # nothing is downloaded
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, EXAMPLES / script, out], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return torch.load(out / "weights.pt", weights_only=True)


def resumed(script, tmp_path, checkpoint, name):
    """Run a script whole, and again from one of its checkpoints. The weights must be equal."""
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    right = run(script, whole)
    (shutil.copytree if (whole / checkpoint).is_dir() else shutil.copy)(
        whole / checkpoint, _made(rest) / name
    )
    found = run(script, rest)
    assert found.keys() == right.keys()
    assert all(torch.equal(found[key], right[key]) for key in right)
    return whole, rest


def _made(folder):
    folder.mkdir()
    return folder


def test_hugging_face_trainer(tmp_path):
    pytest.importorskip("transformers")
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folders = resumed("huggingface_trainer.py", tmp_path, "checkpoint-20", "checkpoint-20")
    alpha, kept = ({}, {}), ({}, {})
    for i, folder in enumerate(folders):
        (log,) = folder.glob("runs/*")
        seen = events.EventAccumulator(str(log)).Reload()
        for values, tag in ((alpha[i], "train/smi/alpha"), (kept[i], "train/smi/kept")):
            values |= {event.step: event.value for event in seen.Scalars(tag)}
    assert [*alpha[0]] == [*range(0, 40, 5)]
    assert [*alpha[1]] == [*range(20, 40, 5)]
    assert alpha[0][35] == pytest.approx(0.4902, abs=1e-4)  # 0.1 + 0.4 (1 - cos 36π/40) / 2
    assert all(0.5 < value < 1 for value in kept[0].values())
    for some in (alpha, kept):
        assert some[1].items() <= some[0].items()


def test_accelerate(tmp_path):
    pytest.importorskip("accelerate")
    pytest.importorskip("transformers")
    pytest.importorskip("wandb")
    whole, rest = resumed("accelerate_loop.py", tmp_path, "20", "20")
    rows, others = wandb_rows(whole), wandb_rows(rest)
    assert len(rows) == 40
    assert rows[39]["smi/alpha"] == pytest.approx(0.5)
    assert rows[19]["nsf/p"] == pytest.approx(0.7)
    assert all(0.5 < row["smi/kept"] < 1 for row in rows)
    assert rows[39]["loss"] < rows[0]["loss"] - 0.5
    assert others == rows[20:]


def wandb_rows(folder):
    """The rows that an offline run of Weights & Biases has logged."""
    from wandb.proto import wandb_internal_pb2

    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    rows = []
    for message in leveldb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(message)
        if record.WhichOneof("record_type") == "history":
            row = {item.key or "/".join(item.nested_key): item for item in record.history.item}
            rows.append({k: json.loads(v.value_json) for k, v in row.items() if k[0] != "_"})
    return rows


def leveldb_records(data):
    """The records of a LevelDB log after wandb's 7 bytes. Wandb no longer has a reader."""
    place, record = 7, b""
    while place < len(data):
        left = -place % 2**15  # a block's last bytes, too few for a header, are padding
        if left < 7:
            place += left
        size, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        record += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def test_lightning(tmp_path):
    pytest.importorskip("lightning")
    whole, rest = resumed("lightning_module.py", tmp_path, "epoch=1.ckpt", "last.ckpt")
    rows, others = (metrics(folder) for folder in (whole, rest))
    assert len(rows) > 20
    assert rows[0]["nsf/p"] == pytest.approx(0.7 + 0.2 * 0.951057, abs=1e-5)  # cos(2π / 20)
    assert rows[9]["nsf/p"] == pytest.approx(0.5)
    assert rows[-1]["loss"] < rows[0]["loss"] - 0.5
    assert others == rows[len(rows) // 2 :]


def metrics(folder):
    (file,) = folder.glob("lightning_logs/*/metrics.csv")
    with file.open() as lines:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(lines)]
