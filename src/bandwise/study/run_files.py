"""The files of a training run, and what is read from them.

The folder of a run holds::

    config.json     what the run depends on, for the reader
    metrics.jsonl   a row for each event: training figures, evaluations; rows are appended
    lens.jsonl      with the lens on, a row for each measurement
    checkpoint.pt   model, optimizer, scheduler and lens, at evaluations and once a minute
    result.json     the final figures, once the run has finished

The last two hold checksums of themselves and of the logs: a flipped bit is an error.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bandwise.files import check_stamp, from_json, read_json, replacing, signed, unsigned
from bandwise.lens import log
from bandwise.lens.quantities.decisions import with_agreement
from bandwise.study.config import RunConfig
from bandwise.study.errors import reading
from bandwise.study.results import Run

CONFIG, METRICS, LENS = "config.json", "metrics.jsonl", log.NAME
CHECKPOINT, RESULT = "checkpoint.pt", "result.json"


def save_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint with its checksum, whole or not at all."""
    # torch.save into a file does not report a full disk.
    content = io.BytesIO()
    torch.save(checkpoint, content)
    with replacing(path) as temporary:
        temporary.write_bytes(signed(content.getvalue()))


def load_checkpoint(path: Path, device: str) -> dict[str, Any]:
    """A checkpoint, checked: tensors and plain data alone. Nothing in it is run."""
    with reading(path):
        # torch.load does not look at the checksums that torch.save writes.
        content = io.BytesIO(unsigned(path.read_bytes()))
        checkpoint: dict[str, Any] = torch.load(content, map_location=device, weights_only=True)
    return checkpoint


def read_metrics(folder: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The evaluations and the training rows so far; ValueError if a line is no row of figures."""
    rows, path = [], folder / METRICS
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(from_json(line.decode()))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if not (_are_figures(rows[-1]) and "step" in rows[-1]):
            raise ValueError(f"line {number} is no row of figures")
    return [r for r in rows if "train_loss" not in r], [r for r in rows if "train_loss" in r]


def _are_figures(data: Any) -> bool:
    return isinstance(data, dict) and all(type(value) in (int, float) for value in data.values())


def read_result(folder: Path) -> dict[str, Any]:
    """What a finished run has stored in ``result.json``; the logs beside it are checked."""
    with reading(folder / RESULT):
        result: dict[str, Any] = read_json(folder / RESULT)
        # Runs from before there were checksums have none, but a length.
        files, _ = result.pop("files", {}), result.pop("lens_bytes", None)
        if not (isinstance(result["settings"], dict) and _are_figures(result["final"])):
            raise ValueError("settings must be named, and final hold figures")
    for name, stamped in files.items():
        with reading(folder / name):
            check_stamp(folder / name, stamped)
    return result


def read_run(config: RunConfig, folder: Path) -> Run:
    """A finished run as an object. DamagedRunError: one of its files is not what was written."""
    result = read_result(folder)
    settings = result.pop("settings")
    with reading(folder / METRICS):
        evals, training = read_metrics(folder)
        if evals[-1]["step"] != result["steps"] or training[-1]["step"] != result["steps"]:
            raise ValueError("it ends before the run did")
        seconds = [row.pop("seconds_per_step") for row in training]
    with reading(folder / LENS):
        rows = log.read(folder) if config.lens else []
        whole = with_agreement([row for row in rows if row["tensor"] == "all"])
    with reading(folder / RESULT):
        return Run(
            optimizer=config.optimizer,
            seed=config.seed,
            evals=evals,
            training=training,
            seconds_per_step=float(np.median(seconds)),
            config={**config.plain(), "settings": settings},
            folder=f"{folder.parent.name}/{folder.name}",
            lens=whole,
            **result,
        )
