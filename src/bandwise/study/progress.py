"""What a study shows while it runs, read from the folders of its runs.

Workers may be processes or other machines: all they have in common with this one is the folder.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from bandwise.files import read_json
from bandwise.study.run import RESULT, read_metrics

_POLL_SECONDS = 0.5
# Between two lines of a run where there is no terminal.
_TALK_SECONDS = 30.0


class _Rate(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} steps/s" if task.speed else "")


class StudyProgress:
    """In a terminal a bar a running run, with its step, loss and time left. Elsewhere a line an
    evaluation of a run, but none within half a minute of its last. A line a finished run in both.
    """

    def __init__(self, console: Console, folders: Mapping[str, Path], steps: int) -> None:
        self._console = console
        self._folders = dict(folders)
        self._steps = steps
        self._total = len(folders)
        # When each run's last line was due, and the evaluated step it told.
        self._told: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[loss]}"),
            _Rate(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def failed(self, label: str) -> None:
        """Say that a run has ended without a result; those with one are found in their folders."""
        self._ended(label, "failed")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look after the runs in the meantime."""
        thread = threading.Thread(target=self._watch, daemon=True)
        with self._progress if self._console.is_terminal else nullcontext():
            thread.start()
            try:
                yield
            finally:
                self._stop.set()
                thread.join()

    def _watch(self) -> None:
        lines: dict[str, TaskID] = {}
        stopped = False
        while not stopped:
            stopped = self._stop.wait(_POLL_SECONDS)
            for label, folder in list(self._folders.items()):
                if (folder / RESULT).exists():
                    self._ended(label, _figures(folder / RESULT))
                elif self._console.is_terminal:
                    self._draw(lines, label, folder)
                else:
                    self._tell(label, folder)
            for label in set(lines) - set(self._folders):
                self._progress.remove_task(lines.pop(label))

    def _draw(self, lines: dict[str, TaskID], label: str, folder: Path) -> None:
        evals, training = _read(folder)
        if not evals:
            return
        step = int(max(rows[-1]["step"] for rows in (evals, training) if rows))
        if label not in lines:
            lines[label] = self._progress.add_task(
                label, total=self._steps, completed=step, loss=""
            )
        loss = f"loss {training[-1]['train_loss']:.4g}" if training else ""
        self._progress.update(lines[label], completed=step, loss=loss)

    def _tell(self, label: str, folder: Path) -> None:
        now = time.monotonic()
        if label in self._told and now - self._told[label][0] < _TALK_SECONDS:
            return
        evals, training = _read(folder)
        if not evals:
            return
        step = int(evals[-1]["step"])
        then, before = self._told.setdefault(label, (now, step))
        if step <= before or now - then < _TALK_SECONDS:
            return
        self._told[label] = now, step
        left = timedelta(seconds=round((self._steps - step) * (now - then) / (step - before)))
        figures = {"train_loss": training[-1]["train_loss"], **evals[-1]}
        self._say(
            f"{label}: step {step:,} of {self._steps:,}, {_in_words(figures)}, about {left} left"
        )

    def _ended(self, label: str, outcome: str) -> None:
        with self._lock:
            if self._folders.pop(label, None) is None:
                return
            self._say(f"[{self._total - len(self._folders)}/{self._total}] {label}: {outcome}")

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _read(folder: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    try:
        return read_metrics(folder)
    except (OSError, ValueError):
        return [], []  # damaged: the run itself will say so


def _figures(result: Path) -> str:
    try:
        final = read_json(result)["final"]
    except (OSError, ValueError):
        return "failed"  # damaged: the study will say how
    return _in_words(final)


def _in_words(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in figures.items() if key != "step")
