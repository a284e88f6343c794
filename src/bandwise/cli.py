"""The command line: ``bandwise compare``, ``report``, ``lens``, ``list``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

try:
    import typer
    from rich.console import Console

    from bandwise import __version__, tasks
    from bandwise.figures import lens_page, lens_runs, study_page, tables
    from bandwise.study import Results, StudyError, by_name, compare, default_folder
except ModuleNotFoundError as error:
    sys.exit(f"bandwise's command line needs {error.name!r}: pip install 'bandwise[study]'")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _bandwise(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Spectral optimizers for PyTorch, and the instruments that show what they do."""
    if version:
        _say(__version__)
        raise typer.Exit


_TASK = "A task's name, package.Class or path/to/file.py:MyTask."
_OPTIMIZERS = (
    "Separated by commas; the first is the baseline. Options follow a colon: "
    "nsf:p=cyclic(0.5,-0.25,200). Also file.py:factory."
)
_DEFAULT_JOBS = "one a processor; one on a GPU; all of a cluster"
_BACKEND = (
    "loky: processes of this machine. dask, ray: a cluster whose machines share the file system, "
    "named by DASK_SCHEDULER_ADDRESS or RAY_ADDRESS."
)
_LENS = (
    "Also record what each optimizer does to frequency bands, spectra, weights and decisions, in "
    "lens.jsonl in each run's folder (0.1 to 3 MB). The training stays the same, but its steps "
    "take longer. Runs with and without it are kept apart."
)


@app.command("compare", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def _compare(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help=_TASK)],
    optimizers: Annotated[str, typer.Option(help=_OPTIMIZERS)] = "adamw,smi-adamw,nsf",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each optimizer.")] = 3,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps a run.", show_default="the task's")
    ] = None,
    lr: Annotated[
        float | None,
        typer.Option(help="Peak learning rate of every optimizer.", show_default="the task's"),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time.", show_default=_DEFAULT_JOBS)
    ] = None,
    backend: Annotated[str, typer.Option(help=_BACKEND)] = "loky",
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda, …")] = "cpu",
    lens: Annotated[bool, typer.Option("--lens", help=_LENS)] = False,
    out: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Of the study.", show_default="bandwise-runs/TASK"),
    ] = None,
) -> None:
    """Train TASK with several optimizers and seeds, and say which differences are real.

    Any further `--KEY VALUE` is an option of the task, such as `--size paper` or `--corpus FILE`
    of shakespeare-char. After `--` all options are the task's, whatever their names. Started again,
    the same command goes on where it was stopped.
    """
    folder = default_folder(task) if out is None else out_folder(out)
    options = tasks.options.read(tasks.find(task), _task_options(context.args))
    try:
        # The parameters of this command are called as the arguments of ``compare``.
        results = compare(**context.params | {"out": folder, "task_options": options})
    except KeyboardInterrupt:
        raise stopped() from None
    _show(results, folder)


@app.command("report")
def _report(
    folder: Annotated[Path, typer.Argument(help="A study's folder, with results.json.")],
) -> None:
    """Print the table and write report.html again, from stored results alone."""
    results = Results.load(folder)
    with stored(folder / "results.json"):
        _show(results, folder)


@app.command("lens")
def _lens(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="FOLDER...", help="With a lens.jsonl, or of studies with --lens."),
    ],
) -> None:
    """Draw what lenses recorded into lens.html in the first FOLDER, side by side.

    Each log appears under the name of its folder. For a study, every optimizer is drawn with a
    band over its seeds; several studies stand side by side.
    """
    studies = lens_runs.runs_of_folders(folders)
    with stored(*folders):
        path = lens_page.write_lens(studies, folders[0])
        for name, runs in studies.items():
            Console().print(tables.lens_table(runs, name))
    _say(f"Lens: {path}")


@app.command("list")
def _list(task: Annotated[str | None, typer.Argument(help=_TASK)] = None) -> None:
    """List the tasks and optimizers that have short names; of a TASK, its options and recipe."""
    if task is not None:
        options, recipe = tasks.describe(task)
        settings = ", ".join(f"{name}={value!r}" for name, value in asdict(recipe).items())
        _say(f"options: {', '.join(options) or 'none'}")
        _say(f"recipe, unless the options change it: {settings}")
        return
    _say(f"tasks: {', '.join(tasks.names())}, package.Class, path/to/file.py:MyTask")
    _say(f"optimizers: {', '.join(by_name.names())}, package.Class, path/to/file.py:factory")
    _say("smi-NAME wraps any of them with SMI, for example smi-adamw")
    _say("bandwise list TASK shows a task's options and recipe")


@contextmanager
def stored(*paths: Path) -> Iterator[None]:
    """Show what files hold. If that fails, the error names the files."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        names = ", ".join(map(str, paths))
        raise ValueError(f"cannot show what {names} holds: {kind}{error}") from error


def out_folder(out: str) -> Path:
    """The folder of ``--out``: it exists, or can be made."""
    path = Path(out)
    there = next(place for place in (path, *path.parents) if place.exists())
    if not out or not there.is_dir():
        raise ValueError(f"--out must be a folder, got {out!r}")
    return path


def wrote(paths: list[Path]) -> None:
    """Print which files were written."""
    for path in paths:
        _say(f"Wrote {path}")


def stopped() -> typer.Exit:
    """Print that the work was stopped and how it goes on."""
    _say("Stopped. The same command goes on from where it was.", stderr=True)
    return typer.Exit(130)


def _say(text: str, stderr: bool = False) -> None:
    Console(stderr=stderr).print(text, markup=False, highlight=False, soft_wrap=True)


def _show(results: Results, folder: Path) -> None:
    Console().print(tables.study_table(results))
    _say(f"Report: {study_page.write_report(results, folder)}")


def _task_options(words: list[str]) -> dict[str, str]:
    """The texts of ``--KEY VALUE`` and ``--KEY=VALUE``, by key. Any word may be a value."""
    options: dict[str, str] = {}
    remaining = iter(words)
    for word in remaining:
        key, equals, rest = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise ValueError(f"cannot read {word!r}: a task's options are --KEY VALUE")
        value = rest if equals else next(remaining, None)
        if value is None:
            raise ValueError(f"option {word} needs a value")
        options[key.replace("-", "_")] = value
    return options


def main() -> None:
    """Run the command line of bandwise."""
    run(app)


def run(app: typer.Typer) -> None:
    """Run a command line; an error is one message and an exit status, not a traceback."""
    try:
        app()
    except (ImportError, OSError, StudyError, TypeError, ValueError) as error:
        _say(f"error: {error}", stderr=True)
        sys.exit(1)
