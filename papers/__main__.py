"""Rerun the papers: ``python -m papers reproduce smi``, ``python -m papers claims``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from bandwise.cli import out_folder, run, stopped, wrote
from papers.ledger import rebuild
from papers.paper import ScaleName
from papers.reproduce import reproduce

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown")


@app.command("reproduce")
def _reproduce(
    paper: Annotated[str, typer.Argument(help="smi or nsf.")],
    scale: Annotated[
        str,
        typer.Option(
            help="small: the paper's design, shrunk to two processors and half an hour. paper: "
            "the paper's own size, for a GPU."
        ),
    ] = "small",
    part: Annotated[
        list[str] | None,
        typer.Option(help="Run this part alone. May be given several times.", show_default="all"),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="Seeds of every setting.", show_default="each part's own number"),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at a time.", show_default="one a processor; one on a GPU"),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, …")] = "cpu",
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Run stored parts again. Their trained runs are kept.",
        ),
    ] = False,
    out: Annotated[
        str, typer.Option(metavar="FOLDER", help="Folder for results and studies.")
    ] = "bandwise-runs/papers",
) -> None:
    """Rerun a PAPER. Every part is stored in OUT/results as soon as it is done.

    A command that was stopped continues when it is started again.
    """
    folder = out_folder(out)
    try:
        paths = reproduce(
            paper,
            cast(ScaleName, scale),
            folder,
            parts=part,
            seeds=seeds,
            jobs=jobs,
            device=device,
            again=again,
        )
    except KeyboardInterrupt:
        raise stopped() from None
    wrote([*paths, *rebuild(folder / "results", folder / "claims.md")])


@app.command("claims")
def _claims(
    folder: Annotated[
        Path,
        typer.Argument(
            help="The folder with the results that `python -m papers reproduce` stored."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file to write the list of claims to.")] = Path(
        "docs/claims.md"
    ),
) -> None:
    """Judge every claim of the papers by stored results. Nothing is trained.

    It writes the list of all claims. Beside the FOLDER it writes a page for each paper, with its
    tables and figures.
    """
    wrote(rebuild(folder, out))


if __name__ == "__main__":
    run(app)
