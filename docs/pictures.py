"""Draws the pictures of the pages into ``docs/images``, training nothing.

They come from ``papers/results`` and, in ``bandwise-runs``, from what the commands beside the
pictures in gallery.md, performance.md and distributed.md store.
Plotly writes them with Kaleido, which needs Chrome or Chromium.
"""

from pathlib import Path

from benchmarks import distributed
from benchmarks.draw import figures as benchmark_figures
from benchmarks.results import Bench
from papers import ledger

from bandwise.figures import lens_figures
from bandwise.figures.lens_runs import runs_of_folders

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs/images"
RUNS = ROOT / "bandwise-runs"

# By what is drawn: the paper, the parts that it is drawn from, and the figure's name there.
PAPERS = {
    "paper-smi-figure-2": ("smi", ("runs", "inference"), "figure-2"),
    "paper-smi-figure-3-evals": ("smi", ("runs",), "figure-3-evals"),
    "paper-smi-figure-4": ("smi", ("runs",), "figure-4"),
    "paper-smi-figure-5": ("smi", ("runs",), "figure-5"),
    "paper-smi-overhead": ("smi", ("overhead",), "overhead"),
    "paper-nsf-lead": ("nsf", ("lead",), "differences-0"),
    "paper-nsf-ablation": ("nsf", ("ablation",), "differences-0"),
}
STUDIES = {
    "two-moons": ("lens-boundary", "lens-gain", "lens-size-slope"),
    "sines": ("lens-function-space", "lens-mask-kept", "lens-layers"),
}


def draw(figures, wanted, name):
    (figure,) = (figure for figure in figures if figure.id == wanted)
    # On a page of any colour, and to be read without the page's style.
    figure.plot.update_layout(paper_bgcolor="white", margin={"t": 40, "b": 56})
    figure.plot.write_image(IMAGES / f"{name}.svg", width=860)
    print(f"{name}.svg: {figure.title}")  # noqa: T201


for edition in ledger.editions(ROOT / "papers/results"):
    for name, (paper, parts, wanted) in PAPERS.items():
        if (paper, "small") == (edition.paper.name, edition.scale):
            data = {part: edition.data[part] for part in parts}
            draw(edition.paper.figures(data), wanted, name)
for study, names in STUDIES.items():
    rows = runs_of_folders([RUNS / study])[study]
    for wanted in names:
        draw(lens_figures(rows), wanted, f"{study}-{wanted.removeprefix('lens-')}")
for name, plot in benchmark_figures(Bench.load(RUNS / "bench/bench.json")).items():
    plot.write_image(IMAGES / f"bench-{name}.svg", width=860)
plot = distributed.figure(RUNS / "distributed")
plot.write_image(IMAGES / "distributed.svg", width=1000)
