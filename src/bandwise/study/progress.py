"""The progress of a study, read from its folder: workers of all kinds share that."""

import functools
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from bandwise.files import read_json
from bandwise.study.config import RunConfig
from bandwise.study.run_files import RESULT, read_metrics

_POLL_SECONDS = 0.5
_LINE_SECONDS = 30.0  # the least time between two lines of a run, without a terminal


class StudyProgress:
    """Shows how far the runs of a study are, while it is entered.

    In a terminal every running run has a bar with its step, loss, speed and time left. Elsewhere it
    has a line at an evaluation, at most one in half a minute. In both a run that ends has a line.
    The caller adds to ``failures`` the labels of runs that failed, as they come.
    """

    def __init__(
        self, configs: Sequence[RunConfig], out: Path, failures: Mapping[str, str], console: Console
    ) -> None:
        self._running = {config.label: out / config.folder for config in configs}
        self._total, self._steps = len(configs), configs[0].recipe["steps"]
        self._failures, self._terminal = failures, console.is_terminal
        self._print = functools.partial(
            console.print, markup=False, highlight=False, soft_wrap=True
        )
        self._tasks: dict[str, TaskID] = {}
        self._lines: dict[str, tuple[float, int]] = {}  # the time and the step of the last line
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self._terminal,
        )

    def __enter__(self) -> None:
        self._bars.start()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._bars.stop()

    def _watch(self) -> None:
        stopped = False
        while not stopped:
            stopped = self._stop.wait(_POLL_SECONDS)
            for label, folder in list(self._running.items()):
                if (folder / RESULT).exists() or label in self._failures:
                    self._end(label, folder)
                else:
                    self._update(label, folder)

    def _update(self, label: str, folder: Path) -> None:
        try:
            evals, training = read_metrics(folder)
        except (OSError, ValueError):
            return  # damaged: the run itself will report it
        if not evals:
            return
        now, evaluated = time.monotonic(), int(evals[-1]["step"])
        last = training[-1] if training else evals[-1]
        loss = {"train_loss": last["train_loss"]} if training else {}
        seconds = last.get("seconds_per_step")
        rate = f", {1 / seconds:.0f} steps/s" if seconds else ""
        if label not in self._tasks:
            self._tasks[label] = self._bars.add_task(label, total=self._steps, figures="")
            self._lines[label] = now, evaluated
        step = max(last["step"], evaluated)
        self._bars.update(self._tasks[label], completed=step, figures=_in_words(loss) + rate)
        then, before = self._lines[label]
        if self._terminal or evaluated == before or now - then < _LINE_SECONDS:
            return
        self._lines[label] = now, evaluated
        left = round((self._steps - evaluated) * (now - then) / (evaluated - before))
        self._print(
            f"{label}: step {evaluated:,} of {self._steps:,}, {_in_words(loss | evals[-1])}, "
            f"about {timedelta(seconds=left)} left"
        )

    def _end(self, label: str, folder: Path) -> None:
        try:
            outcome = _in_words(read_json(folder / RESULT)["final"])
        except (OSError, ValueError):
            outcome = "failed"  # without a result, or damaged: the study will report it
        del self._running[label]
        if label in self._tasks:
            self._bars.remove_task(self._tasks.pop(label))
        self._print(f"[{self._total - len(self._running)}/{self._total}] {label}: {outcome}")


def _in_words(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in figures.items() if key != "step")
