"""A training run in its folder (see ``run_files``): trained, stopped, resumed, finished."""

import functools
import json
import math
import multiprocessing
import os
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from joblib.externals.loky.backend.process import LokyProcess

from bandwise import tasks
from bandwise.files import check_stamp, stamp, to_json, write_json
from bandwise.lens import Lens, Spatial, Temporal, Weights
from bandwise.lens.reading import scheduled
from bandwise.study.config import RunConfig
from bandwise.study.errors import locked, reading
from bandwise.study.run_files import (
    CHECKPOINT,
    CONFIG,
    LENS,
    METRICS,
    RESULT,
    load_checkpoint,
    read_metrics,
    save_checkpoint,
)
from bandwise.study.training import Training, isolated
from bandwise.tasks import Recipe

_ROWS_PER_EVAL = 8
_SAVE_SECONDS = 60.0  # the longest time between two checkpoints
_LOOKS = 6  # how often in a run the lens measures what is large or costly


def train(config: RunConfig, folder: Path) -> None:
    """Train a run in ``folder`` to its end, from its last checkpoint if there is one."""
    _end_with_parent()
    # A worker of a killed study, or one that a cluster has given up for lost, may still train it.
    with locked(folder, wait=True):
        for half_written in folder.glob(".*.tmp"):
            half_written.unlink()
        if not (folder / RESULT).exists():
            write_json(folder / CONFIG, config.plain())
            with isolated(config.device):
                _StoredRun(config, folder).train()


@functools.cache
def _end_with_parent() -> None:
    """In a worker of joblib's: end soon after the parent process, which may be killed."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        while parent and os.getppid() == parent.pid:
            time.sleep(1)
        os._exit(1)

    if isinstance(multiprocessing.current_process(), LokyProcess):
        threading.Thread(target=watch, daemon=True).start()


class _StoredRun:
    """A run in progress, and its folder."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        config.check_code()
        self.config, self.folder = config, folder
        task, recipe = tasks.load(config.task, config.task_options), Recipe(**config.recipe)
        self.training = Training(
            task, config.optimizer, config.seed, recipe=recipe, device=config.device
        )
        self.diverged, self.saved = False, time.monotonic()
        self.steps, self.eval_every = recipe.steps, max(1, recipe.steps // recipe.evals)
        self.lens = self._lens() if config.lens else None

    def _lens(self) -> Lens:
        """A lens that has something to show for the shortest run, too."""
        training, every = self.training, min(50, self.eval_every)
        window = min(256, max(32, math.ceil(self.steps / _LOOKS)))
        weights = Weights(every=max(1, self.steps // every // (_LOOKS - 1)))
        quantities = (Temporal(window=window), Spatial(), weights)
        return Lens(training.model, training.optimizer, every, self.folder, quantities=quantities)

    def train(self) -> None:
        """Train to the end, and write the result."""
        training, every = self.training, self.eval_every
        row_every = max(1, every // _ROWS_PER_EVAL)
        with (self.folder / METRICS).open("ab") as self.metrics:
            self._resume()
            with self.lens or nullcontext():
                if training.step == 0:
                    self._evaluate()
                while training.step < self.steps and not self.diverged:
                    # At step 0 there is nothing to save.
                    if training.step > 0 and time.monotonic() - self.saved > _SAVE_SECONDS:
                        self._save_checkpoint()
                    next_eval = min((training.step // every + 1) * every, self.steps)
                    self._train_until(min(training.step + row_every, next_eval))
                    if training.step == next_eval or self.diverged:
                        self._evaluate()
                        self._save_checkpoint()
            self._finish()

    def _train_until(self, step: int) -> None:
        """Train up to a step, and write a row."""
        training, steps = self.training, step - self.training.step
        started = time.perf_counter()
        losses = torch.zeros((), device=self.config.device)
        while training.step < step:
            lr = training.optimizer.param_groups[0]["lr"]
            losses += training.train_step()
        loss = losses.item() / steps  # waits for the device, so it comes before the clock
        seconds = (time.perf_counter() - started) / steps
        self.diverged = not math.isfinite(loss)
        row = {"train_loss": loss, "lr": float(lr), "seconds_per_step": seconds}
        # Of the first parameter group, as its last step used them: "smi/alpha", "nsf/p".
        values = scheduled(training.optimizer, training.optimizer.param_groups[0])
        row |= {name.partition("/")[2]: value for name, value in values.items()}
        self._write_row(step=step, **row)

    def _evaluate(self) -> None:
        training = self.training
        self._write_row(step=training.step, **training.evaluate("val"))
        if self.lens is None:
            return
        # A boundary moves most in the beginning: the evaluations 0, 1, 2, 5, 11 and 25 of 25.
        evals, number = (math.ceil(s / self.eval_every) for s in (self.steps, training.step))
        looks = {0, *(round(evals ** (i / (_LOOKS - 2))) for i in range(_LOOKS - 1))}
        with training.autocast():
            self.lens.look(
                training.task.probe(),
                training.task.plane() if number in looks else None,
                activations=training.step == self.steps and not self.diverged,
            )

    def _write_row(self, **figures: float) -> None:
        self.metrics.write(to_json(figures).encode() + b"\n")
        self.metrics.flush()

    def _save_checkpoint(self) -> None:
        self.saved = time.monotonic()
        os.fsync(self.metrics.fileno())
        own = {"diverged": self.diverged, "metrics": stamp(self.folder / METRICS)}
        lens = {"lens": self.lens.state_dict()} if self.lens else {}
        save_checkpoint(self.folder / CHECKPOINT, self.training.state_dict() | own | lens)

    def _resume(self) -> None:
        """Go back to the last checkpoint, and drop what came after it."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            (self.folder / LENS).unlink(missing_ok=True)
            self.metrics.truncate(0)
            return
        checkpoint = load_checkpoint(path, self.config.device)
        with reading(path):
            self.training.load_state_dict(checkpoint)
            self.diverged, metrics = checkpoint["diverged"], checkpoint["metrics"]
        with reading(self.folder / METRICS):
            self.metrics.truncate(check_stamp(self.folder / METRICS, metrics))
        if self.lens is not None:
            with reading(self.folder / LENS):
                self.lens.load_state_dict(checkpoint["lens"])

    def _finish(self) -> None:
        with reading(self.folder / METRICS):
            evals, training_rows = read_metrics(self.folder)
        last = training_rows[-_ROWS_PER_EVAL:]
        final = {"train_loss": sum(row["train_loss"] for row in last) / len(last), **evals[-1]}
        del final["step"]
        if "test" in self.training.task.splits:
            final |= self.training.evaluate("test")
        # Of the first parameter group, defaults and all. What changes at each step is no setting.
        left_out = ("params", "lr", "step", "smi_step")
        group = self.training.optimizer.param_groups[0]
        settings = {k: v for k, v in group.items() if k not in left_out and v is not None}
        logs = [METRICS, LENS] if self.lens else [METRICS]
        result = {
            "steps": self.training.step,
            "diverged": self.diverged or not all(map(math.isfinite, final.values())),
            "final": final,
            "settings": json.loads(json.dumps(settings, default=str, skipkeys=True)),
            "files": {name: stamp(self.folder / name) for name in logs},
        }
        write_json(self.folder / RESULT, result)
