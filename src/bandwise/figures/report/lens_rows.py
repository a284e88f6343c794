"""The lens's rows of whole runs: of a study, or of the logs in folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from bandwise.figures.instruments import Runs
from bandwise.lens import Lens, Row
from bandwise.lens.log import NAME
from bandwise.study.decisions import with_agreement
from bandwise.study.results import Results, Run
from bandwise.study.run_files import read_result

_T = TypeVar("_T")


def rows_of_study(results: Results, folder: Path | None = None) -> Runs:
    """The lens's rows of every run, in the order of the comparison, and its evaluations as rows.

    Runs that diverged are left out: their figures stop where nothing can be measured any more.

    Args:
        results: the study.
        folder: where it is kept; the rows of single tensors, which ``results`` does not hold, are
            read from the logs there.
    """
    return {
        row.optimizer: [
            _rows_of_run(run, folder)
            for run in results.runs_of(row.optimizer)
            if run.lens and not run.diverged
        ]
        for row in results.comparisons
    }


def _rows_of_run(run: Run, folder: Path | None) -> list[Row]:
    evaluations = [{"quantity": "evaluation", "tensor": "all", **row} for row in run.evals]
    tensors = []
    if folder is not None and (folder / run.folder / NAME).exists():
        read_result(folder / run.folder)  # knows whether the log is what it was
        tensors = [row for row in Lens.read(folder / run.folder) if row["tensor"] != "all"]
    return [*run.lens, *evaluations, *tensors]


def rows_of_folders(folders: Sequence[Path]) -> dict[str, Runs]:
    """The rows of the logs in some folders, by study and label.

    Logs of their own are one study without a name, each under its folder's. A study's folder gives
    all its runs under its task's name, each under its optimizer's label. Where two names are the
    same, each gets its folder's path behind.

    Raises:
        FileNotFoundError: there is no such folder, or neither a log nor a study in it.
        ValueError: a log is empty or damaged, or a study was made without a lens.
        DamagedRunError: a log of a study is not what was written.
    """
    found: list[tuple[str, Path, Runs]] = []
    logs: list[tuple[str, Path, list[list[Row]]]] = []
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        if (folder / "results.json").exists():
            found.append(_study(folder))
        else:
            logs.append((folder.resolve().name, folder, [_log(folder)]))
    studies = _named(found)
    return studies | {"": _named(logs)} if logs else studies


def _named(found: Sequence[tuple[str, Path, _T]]) -> dict[str, _T]:
    clash = len({name for name, *_ in found}) < len(found)
    return {f"{name} ({folder})" if clash else name: some for name, folder, some in found}


def _study(folder: Path) -> tuple[str, Path, Runs]:
    results = Results.load(folder)
    runs = rows_of_study(results, folder)
    if not any(runs.values()):
        raise ValueError(
            f"the study in {folder} has no run with a lens that did not diverge: "
            "run `bandwise compare` with --lens"
        )
    return results.task, folder, runs


def _log(folder: Path) -> list[Row]:
    rows = Lens.read(folder)
    if not rows:
        raise ValueError(f"{folder / NAME} holds no rows yet")
    return with_agreement(rows)
