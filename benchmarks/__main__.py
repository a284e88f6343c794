"""What the optimizers cost: ``python -m benchmarks [smi|nsf|lens|all]``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from bandwise.cli import out_folder, run, stored, wrote
from benchmarks import Bench, draw, table
from benchmarks import run as run_benchmarks

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.command()
def _benchmarks(
    subject: Annotated[str, typer.Argument(help="smi, nsf, lens or all.")] = "all",
    out: Annotated[
        str, typer.Option(metavar="FOLDER", help="Folder for bench.json and the pictures.")
    ] = "bandwise-runs/bench",
    device: Annotated[str, typer.Option(help="Where to measure: cpu, cuda, …")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads on the CPU.", show_default="torch's")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer sizes and rounds.")] = False,
    redraw: Annotated[
        bool,
        typer.Option("--redraw", help="Measure nothing: show the bench.json in the folder again."),
    ] = False,
) -> None:
    """Measure how much time and memory the optimizers cost, next to other optimizers and to the
    least that the hardware allows.

    All are timed in turns over many rounds, so leave the machine alone meanwhile.
    """
    folder = out_folder(out)
    if redraw:
        results = Bench.load(folder / "bench.json")
    else:
        results = run_benchmarks(subject, folder, device=device, threads=threads, quick=quick)
    console = Console()
    with stored(folder / "bench.json"):
        console.print(table(results))
        pictures = draw(results, folder)
    wrote([folder / "bench.json", *pictures])


if __name__ == "__main__":
    run(app)
