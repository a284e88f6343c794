"""The lens's rows of whole runs: of a study, or of the logs in folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from bandwise.figures.instruments import Runs
from bandwise.lens import Lens, Row
from bandwise.lens.log import NAME
from bandwise.study.results import Results, Run
from bandwise.study.run_files import read_result

_T = TypeVar("_T")


def runs_of_study(results: Results, folder: Path) -> Runs:
    """The lens's rows of every run and its evaluations as rows, in the order of the comparison.

    The rows of single tensors stand in the logs in the study's folder alone. Runs that diverged are
    left out: their figures stop where nothing can be measured any more. A log that is not what was
    written raises ``DamagedRunError``.
    """
    return {
        row.optimizer: [
            _rows_of_run(run, folder / run.folder)
            for run in results.runs_of(row.optimizer)
            if run.lens and not run.diverged
        ]
        for row in results.comparisons
    }


def _rows_of_run(run: Run, folder: Path) -> list[Row]:
    evaluations = [{"quantity": "evaluation", "tensor": "all", **row} for row in run.evals]
    tensors = []
    if (folder / NAME).exists():
        read_result(folder)  # checks that the log is what was written
        tensors = [row for row in Lens.read(folder) if row["tensor"] != "all"]
    return [*run.lens, *evaluations, *tensors]


def runs_of_folders(folders: Sequence[Path]) -> dict[str, Runs]:
    """The rows of the logs in some folders, by study and label.

    The runs of a study stand under its task's name, each under its optimizer's label. Single logs
    are one study without a name, each under the name of its folder. Where two names are the same,
    the folder's path follows each.
    """
    studies: list[tuple[str, Path, Runs]] = []
    logs: list[tuple[str, Path, list[list[Row]]]] = []
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        if (folder / "results.json").exists():
            results = Results.load(folder)
            runs = runs_of_study(results, folder)
            if not any(runs.values()):
                raise ValueError(
                    f"the study in {folder} has no run with a lens that did not diverge: "
                    "run `bandwise compare` with --lens"
                )
            studies.append((results.task, folder, runs))
        elif rows := Lens.read(folder):
            logs.append((folder.resolve().name, folder, [rows]))
        else:
            raise ValueError(f"{folder / NAME} holds no rows yet")
    return _named(studies) | ({"": _named(logs)} if logs else {})


def _named(found: Sequence[tuple[str, Path, _T]]) -> dict[str, _T]:
    clash = len({name for name, *_ in found}) < len(found)
    return {f"{name} ({folder})" if clash else name: some for name, folder, some in found}
