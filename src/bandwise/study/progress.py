"""The progress of a study, read from the folders of its runs.

Workers may be processes or other machines. They share nothing with this process but the folder.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
from bandwise.study.run_files import RESULT, read_metrics

_POLL_SECONDS = 0.5
# The least time between two lines of a run, without a terminal.
_LINE_SECONDS = 30.0


class _Rate(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} steps/s" if task.speed else "")


class StudyProgress:
    """Shows how far the runs of a study are.

    In a terminal every running run has a bar with its step, loss and time left. Elsewhere it has a
    line at an evaluation, at most one in half a minute. In both a finished run has a line.

    Args:
        console: where to write.
        folders: the runs' folders, by their labels.
        steps: optimizer steps in a run.
    """

    def __init__(self, console: Console, folders: Mapping[str, Path], steps: int) -> None:
        self._console = console
        self._folders = dict(folders)
        self._steps = steps
        self._total = len(folders)
        # The time of each run's last line, and its step.
        self._lines: dict[str, tuple[float, int]] = {}
        self._bars: dict[str, TaskID] = {}
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
            disable=not console.is_terminal,
        )

    def failed(self, label: str) -> None:
        """Report a run that has ended without a result. Results are found in the folders."""
        self._ended(label, "failed")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Show the progress in the meantime."""
        thread = threading.Thread(target=self._watch, daemon=True)
        with self._progress:
            thread.start()
            try:
                yield
            finally:
                self._stop.set()
                thread.join()

    def _watch(self) -> None:
        stopped = False
        while not stopped:
            stopped = self._stop.wait(_POLL_SECONDS)
            for label, folder in list(self._folders.items()):
                if (folder / RESULT).exists():
                    self._ended(label, _figures(folder / RESULT))
                else:
                    with self._lock:
                        self._update(label, folder)

    def _update(self, label: str, folder: Path) -> None:
        try:
            evals, training = read_metrics(folder)
        except (OSError, ValueError):
            return  # damaged: the run itself will report it
        if not evals or label not in self._folders:
            return
        now, evaluated = time.monotonic(), int(evals[-1]["step"])
        figures = training[-1] if training else evals[-1]
        bar = self._bars.get(label)
        if bar is None:
            bar = self._bars[label] = self._progress.add_task(label, total=self._steps, loss="")
            self._lines[label] = now, evaluated
        loss = f"loss {figures['train_loss']:.4g}" if training else ""
        self._progress.update(bar, completed=max(figures["step"], evaluated), loss=loss)
        then, before = self._lines[label]
        if self._console.is_terminal or evaluated == before or now - then < _LINE_SECONDS:
            return
        self._lines[label] = now, evaluated
        left = timedelta(
            seconds=round((self._steps - evaluated) * (now - then) / (evaluated - before))
        )
        self._print(
            f"{label}: step {evaluated:,} of {self._steps:,}, "
            f"{_in_words({'train_loss': figures['train_loss'], **evals[-1]})}, about {left} left"
        )

    def _ended(self, label: str, outcome: str) -> None:
        with self._lock:
            if self._folders.pop(label, None) is None:
                return
            if label in self._bars:
                self._progress.remove_task(self._bars.pop(label))
            self._print(f"[{self._total - len(self._folders)}/{self._total}] {label}: {outcome}")

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _figures(result: Path) -> str:
    try:
        final = read_json(result)["final"]
    except (OSError, ValueError):
        return "failed"  # damaged: the study will report it
    return _in_words(final)


def _in_words(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in figures.items() if key != "step")
