"""One training run in its folder: trained, cut off, resumed, finished.

A run is a function of its configuration alone. Weights come from the seed, a step's batch and
dropout from the seed and the step, so that every optimizer meets the same ones, and a run that
goes on from a checkpoint ends in the same result as one that was never cut off.

The folder holds::

    config.json     what the run depends on, for the reader
    metrics.jsonl   a row an event, appended: training figures, evaluations
    lens.jsonl      with the lens on, a row a measurement
    checkpoint.pt   model, optimizer, scheduler and lens, at evaluations and once a minute
    result.json     the final figures; there once the run has finished

The last two hold checksums of themselves and of the logs: a flipped bit is an error, and no other
result.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import random
import re
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils._pytree import tree_map

import bandwise
from bandwise import tasks, userfile
from bandwise.files import (
    crc32_of,
    from_json,
    read_json,
    replacing,
    signed,
    to_json,
    unsigned,
    write_json,
)
from bandwise.lens import Lens, Row, Spatial, Temporal, Weights, log
from bandwise.lens.quantities.decisions import with_agreement
from bandwise.lens.reading import scheduled
from bandwise.study import optimizers, spec
from bandwise.study.errors import StudyError, reading
from bandwise.study.locks import alone_in
from bandwise.study.results import Run
from bandwise.tasks import Recipe, Task

METRICS, CHECKPOINT, RESULT = "metrics.jsonl", "checkpoint.pt", "result.json"

_ROWS_PER_EVAL = 8
# Where evaluations are far apart.
_SAVE_SECONDS = 60.0
# How often in a run the lens takes what is large or costly.
_LOOKS = 6


@dataclass(frozen=True)
class RunConfig:
    """Everything that a run's result depends on, as plain data.

    Attributes:
        task: name or ``file.py:Class``; ``task_options`` are its constructor's.
        data: hashes of data and user files.
        optimizer: the optimizer's text.
        seed: of weights, batches and dropout.
        recipe: the fields of ``bandwise.tasks.Recipe``.
        device: ``"cpu"``, ``"cuda"``, …
        versions: of bandwise and torch.
        lens: whether a ``bandwise.Lens`` watches it.
    """

    task: str
    task_options: dict[str, Any]
    data: dict[str, str]
    optimizer: str
    seed: int
    recipe: dict[str, Any]
    device: str
    versions: dict[str, str]
    lens: bool = False

    def plain(self) -> dict[str, Any]:
        """Its fields, without ``lens`` where there is none: as they were before there were any."""
        return {key: value for key, value in asdict(self).items() if key != "lens" or value}

    def folder_name(self) -> str:
        """A readable name that another configuration does not have."""
        text = json.dumps(self.plain(), sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        label = re.sub(r"[^A-Za-z0-9.=-]+", "-", self.optimizer).strip("-.")[:40]
        return f"{label}-seed{self.seed}-{digest}"


def _check_files(config: RunConfig) -> None:
    """A user's files must be what they were when the study began, or two versions share a table."""
    for name in (config.task, spec.parse(config.optimizer).name):
        files = userfile.load(name).files if userfile.is_userfile(name) else {}
        for file, sha256 in files.items():
            if config.data.get(file) != sha256:
                raise StudyError(f"{userfile.file_of(file)} changed while the study ran")


def _check_versions(config: RunConfig) -> None:
    """Another version may come to another result."""
    for name, version in (("bandwise", bandwise.__version__), ("torch", torch.__version__)):
        wanted = config.versions.get(name, version)
        if version != wanted:
            raise StudyError(
                f"the study was begun with {name} {wanted}, and this worker has {version}"
            )


def learning_rate_factor(step: int, recipe: Recipe) -> float:
    """The learning rate at ``step`` (from 0) over its peak: warm-up, then a cosine (nanoGPT's)."""
    warmup = math.ceil(recipe.warmup * recipe.steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, recipe.steps - warmup))
    return (
        recipe.min_lr_factor + (1 - recipe.min_lr_factor) * (1 + math.cos(math.pi * progress)) / 2
    )


def train(config: RunConfig, folder: Path) -> None:
    """Train the run in ``folder``, from its last checkpoint if there is one, to its end.

    Waits while another process trains it, such as a worker that a killed study left behind or one
    that was given up for lost.

    Raises:
        DamagedRunError: a file in ``folder`` does not hold what the run wrote.
    """
    if (folder / RESULT).exists():
        return
    with alone_in(folder):
        if not (folder / RESULT).exists():
            write_json(folder / "config.json", config.plain())
            _train(config, folder)


def _train(config: RunConfig, folder: Path) -> None:
    # Sums depend on how they are split among threads; results must not depend on the machine's use.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            _Training(config, folder).run()
    finally:
        torch.set_num_threads(threads)


class _Training:
    """A run in progress."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.recipe = Recipe(**config.recipe)
        _check_versions(config)
        _check_files(config)
        self.task: Task = tasks.load(config.task, config.task_options)
        torch.manual_seed(config.seed)
        self.model: nn.Module = self.task.model().to(config.device)
        self.optimizer: Optimizer = optimizers.build(
            spec.parse(config.optimizer), self.model.named_parameters(), self.recipe.lr, self.recipe
        )
        self.scheduler = LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, self.recipe)
        )
        self.step = 0
        self.diverged = False
        self.saved = time.monotonic()
        self.eval_every = max(1, self.recipe.steps // self.recipe.evals)
        self.lens = self._lens() if config.lens else None

    def _lens(self) -> Lens:
        """One that has something to show for the shortest run, too."""
        steps, every = self.recipe.steps, min(50, self.eval_every)
        quantities = (
            Temporal(window=min(256, max(32, math.ceil(steps / _LOOKS)))),
            Spatial(),
            Weights(every=max(1, steps // every // (_LOOKS - 1))),
        )
        return Lens(self.model, self.optimizer, every, self.folder, quantities=quantities)

    def run(self) -> None:
        with (self.folder / METRICS).open("ab") as self.metrics:
            self._resume()
            with self.lens or nullcontext():
                self._train_and_evaluate()
            self._finish()

    def _train_and_evaluate(self) -> None:
        recipe, eval_every = self.recipe, self.eval_every
        row_every = max(1, eval_every // _ROWS_PER_EVAL)
        if self.step == 0:
            self._row(step=0, **self._evaluate("val"))
            self._look()
        while self.step < recipe.steps and not self.diverged:
            next_eval = min(self.step - self.step % eval_every + eval_every, recipe.steps)
            while self.step < next_eval and not self.diverged:
                # At step 0 there is nothing to save.
                if self.step > 0 and time.monotonic() - self.saved > _SAVE_SECONDS:
                    self._save_checkpoint()
                self._train(until=min(self.step + row_every, next_eval))
            self._row(step=self.step, **self._evaluate("val"))
            self._look()
            self._save_checkpoint()

    def _train(self, until: int) -> None:
        """Train up to a step, and write a row."""
        started, steps = time.perf_counter(), until - self.step
        loss_sum = torch.zeros((), device=self.config.device)
        while self.step < until:
            self.step += 1
            lr = self.optimizer.param_groups[0]["lr"]
            loss_sum += self._train_step()
        loss = loss_sum.item() / steps  # waits for the device, so it stands before the clock
        self.diverged = not math.isfinite(loss)
        self._row(
            step=self.step,
            train_loss=loss,
            lr=float(lr),
            seconds_per_step=(time.perf_counter() - started) / steps,
            **scheduled_values(self.optimizer),
        )

    def _train_step(self) -> Tensor:
        device = self.config.device
        self._seed()
        batch = tree_map(
            lambda x: x.to(device) if isinstance(x, Tensor) else x,
            self.task.batch(self.config.seed, self.step),
        )
        losses: list[Tensor] = []

        def closure() -> Tensor:
            losses.append(self._gradients(batch))
            return losses[-1]

        self.model.train()
        # Most optimizers ask for the gradients once, some at several points of a step.
        self.optimizer.step(closure)  # type: ignore[arg-type]
        if not losses:
            raise StudyError(
                f"{type(self.optimizer).__name__}.step must call the closure that it is given, as "
                "those of torch.optim do"
            )
        self.scheduler.step()
        self.optimizer.zero_grad()
        return losses[0]

    def _gradients(self, batch: Any) -> Tensor:
        """The loss where the weights are now, the parameters' gradients with it."""
        self._seed()
        self.optimizer.zero_grad()
        with self._autocast():
            loss = self.task.loss(self.model, batch)
        if not isinstance(loss, Tensor):
            raise StudyError(f"the task's loss must return a tensor, got {loss!r}")
        if loss.ndim > 0:
            raise StudyError(f"the task's loss must be a scalar, got shape {tuple(loss.shape)}")
        if not loss.requires_grad:
            raise StudyError("the task's loss must depend on the weights: it has no gradient")
        loss.backward()  # type: ignore[no-untyped-call]
        if self.recipe.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.grad_clip)
        return loss.detach()

    def _seed(self) -> None:
        """Dropout must not depend on where the run was last resumed, nor on how often a step asks
        for gradients. Its streams are those of the negative steps, which no batch has."""
        seed = tasks.generator(self.config.seed, -self.step).initial_seed()
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)

    def _autocast(self) -> Any:
        if self.recipe.autocast is None or self.config.device == "cpu":
            return nullcontext()
        return torch.autocast(self.config.device, getattr(torch, self.recipe.autocast))

    @torch.no_grad()
    def _evaluate(self, split: tasks.Split) -> dict[str, float]:
        self.model.eval()
        with self._autocast():
            figures = self.task.evaluate(self.model, split)
        if not isinstance(figures, dict) or self.task.metric not in figures:
            raise StudyError(
                f"the task's evaluate must return a dict with its metric {self.task.metric!r}, "
                f"got {figures!r}"
            )
        return {f"{split}_{name}": float(value) for name, value in figures.items()}

    def _look(self) -> None:
        """What the lens records of an evaluation."""
        if self.lens is None:
            return
        # A boundary moves most in the beginning: the evaluations 0, 1, 2, 5, 11 and 25 of 25.
        evals, number = (math.ceil(s / self.eval_every) for s in (self.recipe.steps, self.step))
        looks = {0, *(round(evals ** (i / (_LOOKS - 2))) for i in range(_LOOKS - 1))}
        with self._autocast():
            self.lens.look(
                self.task.probe(),
                self.task.plane() if number in looks else None,
                activations=self.step == self.recipe.steps and not self.diverged,
            )

    def _row(self, **figures: float) -> None:
        self.metrics.write(to_json(figures).encode() + b"\n")
        self.metrics.flush()

    def _save_checkpoint(self) -> None:
        self.saved = time.monotonic()
        os.fsync(self.metrics.fileno())
        checkpoint = {
            "step": self.step,
            "diverged": self.diverged,
            "metrics": _stamp(self.folder / METRICS),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }
        if self.lens is not None:
            checkpoint["lens"] = self.lens.state_dict()
        # torch.save into a file does not say that a disk is full.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with replacing(self.folder / CHECKPOINT) as path:
            path.write_bytes(signed(content.getvalue()))

    def _resume(self) -> None:
        """Go back to the last checkpoint, and forget what came after it."""
        path = self.folder / CHECKPOINT
        metrics_bytes = 0
        if path.exists():
            with reading(path):
                checkpoint = load_checkpoint(path, self.config.device)
                self.model.load_state_dict(checkpoint["model"])
                self.optimizer.load_state_dict(checkpoint["optimizer"])
                self.scheduler.load_state_dict(checkpoint["scheduler"])
                self.step, self.diverged = checkpoint["step"], checkpoint["diverged"]
                metrics = checkpoint["metrics"]
            with reading(self.folder / METRICS):
                metrics_bytes = _check_stamp(self.folder / METRICS, metrics)
            if self.lens is not None:
                with reading(self.folder / log.NAME):
                    self.lens.load_state_dict(checkpoint["lens"])
        else:
            (self.folder / log.NAME).unlink(missing_ok=True)
        self.metrics.truncate(metrics_bytes)
        self.metrics.seek(metrics_bytes)

    def _finish(self) -> None:
        with reading(self.folder / METRICS):
            evals, training = read_metrics(self.folder)
        last = training[-_ROWS_PER_EVAL:]
        final = {
            "train_loss": sum(row["train_loss"] for row in last) / len(last),
            **{name: value for name, value in evals[-1].items() if name != "step"},
        }
        if "test" in self.task.splits:
            final |= self._evaluate("test")
        self.diverged = self.diverged or not all(map(math.isfinite, final.values()))
        result = {
            "steps": self.step,
            "diverged": self.diverged,
            "final": final,
            "settings": settings(self.optimizer),
            "files": {
                name: _stamp(self.folder / name)
                for name in (METRICS, *([log.NAME] if self.lens else []))
            },
        }
        write_json(self.folder / RESULT, result)


def settings(optimizer: Optimizer) -> dict[str, Any]:
    """What the first parameter group was set to, defaults and all, as plain data."""
    group = optimizer.param_groups[0]
    # What changes from step to step is no setting.
    left_out = ("params", "lr", "step", "smi_step")
    return {
        str(key): value if _is_plain(value) else str(value)
        for key, value in group.items()
        if key not in left_out and value is not None
    }


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return type(value) in (bool, int, float, str)


def scheduled_values(optimizer: Optimizer) -> dict[str, float]:
    """``alpha`` and ``p`` as the first parameter group's last step used them."""
    values = scheduled(optimizer, optimizer.param_groups[0])
    return {name.partition("/")[2]: value for name, value in values.items()}


def load_checkpoint(path: Path, device: str) -> dict[str, Any]:
    """What a run has saved, checked; tensors and plain data alone, nothing in it is run.

    Raises:
        DamagedRunError: it is not what was written.
    """
    with reading(path):
        # torch.load does not look at the checksums that torch.save writes.
        content = io.BytesIO(unsigned(path.read_bytes()))
        checkpoint: dict[str, Any] = torch.load(content, map_location=device, weights_only=True)
    return checkpoint


def _stamp(path: Path) -> dict[str, int]:
    """How long a log is, and its checksum."""
    size = path.stat().st_size
    return {"bytes": size, "crc32": crc32_of(path, size)}


def _check_stamp(path: Path, stamp: dict[str, int]) -> int:
    """Raise unless a log still begins with what it was; its length then."""
    size = path.stat().st_size
    if size < stamp["bytes"]:
        raise ValueError(f"it has {size} bytes, and had {stamp['bytes']}")
    if crc32_of(path, stamp["bytes"]) != stamp["crc32"]:
        raise ValueError("its checksum does not fit: it is not what was written")
    return stamp["bytes"]


def read_metrics(folder: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The evaluations and the training rows that a run has written so far.

    Raises:
        ValueError: a line is no row of figures.
    """
    evals: list[dict[str, float]] = []
    training: list[dict[str, float]] = []
    path = folder / METRICS
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            row = from_json(line.decode())
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if not (isinstance(row, dict) and "step" in row and _are_figures(row)):
            raise ValueError(f"line {number} is no row of figures")
        (training if "train_loss" in row else evals).append(row)
    return evals, training


def _are_figures(row: dict[str, Any]) -> bool:
    return all(type(value) in (int, float) for value in row.values())


def read_run(config: RunConfig, folder: Path, relative: str) -> Run:
    """A finished run as an object.

    Raises:
        DamagedRunError: one of its files does not hold what it should.
    """
    result = read_result(folder)
    used = result.pop("settings")
    with reading(folder / METRICS):
        evals, training = read_metrics(folder)
        if evals[-1]["step"] != result["steps"] or training[-1]["step"] != result["steps"]:
            raise ValueError("it ends before the run did")
        seconds = [row.pop("seconds_per_step") for row in training]
    with reading(folder / log.NAME):
        lens = _read_lens(folder) if config.lens else []
    with reading(folder / RESULT):
        return Run(
            optimizer=config.optimizer,
            seed=config.seed,
            evals=evals,
            training=training,
            seconds_per_step=float(np.median(seconds)),
            config={**config.plain(), "settings": used},
            folder=relative,
            lens=lens,
            **result,
        )


def read_result(folder: Path) -> dict[str, Any]:
    """What a finished run has stored in ``result.json``, the logs beside it checked.

    Raises:
        DamagedRunError: one of the files is not what was written.
    """
    with reading(folder / RESULT):
        result: dict[str, Any] = read_json(folder / RESULT)
        # Runs from before there were checksums have none, but a length.
        stamps, _ = result.pop("files", {}), result.pop("lens_bytes", None)
        if not (isinstance(result["settings"], dict) and _are_figures(result["final"])):
            raise ValueError("settings must be named, and final hold figures")
    for name, stamp in stamps.items():
        with reading(folder / name):
            _check_stamp(folder / name, stamp)
    return result


def _read_lens(folder: Path) -> list[Row]:
    """What the lens recorded of the whole model."""
    return with_agreement([row for row in log.read(folder) if row["tensor"] == "all"])
