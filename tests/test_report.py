"""The report agrees with the results, in every shape that results can have."""

from __future__ import annotations

import dataclasses
import html
import io
import json
import math
import re
import statistics
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import pytest

pytest.importorskip("plotly")
pytest.importorskip("jinja2")
pytest.importorskip("rich")

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from rich.console import Console

from bandwise.figures.figure import Figure, line
from bandwise.figures.lens_page import write_lens
from bandwise.figures.lens_runs import runs_of_folders, runs_of_study
from bandwise.figures.study_figures import differences, logged_curves, study_figures
from bandwise.figures.study_page import configurations, render_report, write_report
from bandwise.figures.study_words import Decimals, pace, readable, sentence
from bandwise.figures.tables import study_table
from bandwise.figures.words import DASH, MINUS, TIMES
from bandwise.study import compare
from bandwise.study.results import Comparison, Results, Run, Verdict

STEPS = 100
PLOTLY = get_plotlyjs()
NOWHERE = Path("nowhere")  # a study's folder without logs


def a_run(label: str, seed: int, end: float, *, diverged: bool = False, **scheduled: Any) -> Run:
    """A run whose loss falls linearly from 4 to ``end``. A diverged run stops at step 40."""
    last = 40 if diverged else STEPS
    evals = [
        {"step": t, "val_loss": 4 + (end - 4) * t / STEPS, "val_error_k1": end / (t + 1)}
        for t in range(10, last + 1, 10)
    ]
    training = [
        {"step": t, "train_loss": 3 + (end - 3) * t / STEPS, "lr": 0.1 * t, **scheduled}
        for t in range(5, last + 1, 5)
    ]
    if diverged:
        evals[-1]["val_loss"] = math.inf
        training[-1]["train_loss"] = math.nan
    return Run(
        optimizer=label,
        seed=seed,
        diverged=diverged,
        steps=last,
        final={"val_loss": math.nan if diverged else end, "test_loss": end + 0.5},
        seconds_per_step=0.02,
        evals=evals,
        training=training,
        config={"task": {"name": "toy"}, "seed": seed, "optimizer": {"name": label, "lr": 0.1}},
        folder=f"runs/{label}-{seed}",
    )


def lens_rows(slope: float = -1.0) -> list[dict[str, Any]]:
    """Rows that a lens may record in a run."""
    bands = {f"{name}_{band}": 1.0 for name in ("gain", "response") for band in ("low", "high")}
    temporal = {"steps": 50, "frequency": [0.0, 0.5], "gain": [1.0, 1.0], "response": [1.0, 1.0]}
    temporal |= {"size_slope": slope, "size_slope_low": slope, "size_slope_high": slope}
    temporal |= {"across_rate": [], "across_gain": []} | bands
    grid = {"x": [0, 1], "y": [0, 1], "n": 2, "values": [-1.0, 1.0, -1.0, 1.0]}
    return [
        {"step": 50, "quantity": "weights", "tensor": "all", "kurtosis": 3.0},
        {"step": 50, "quantity": "boundary", "tensor": "all", **grid},
        {"step": 100, "quantity": "temporal", "tensor": "all", **temporal},
    ]


def a_row(label: str, verdict: Verdict, **changes: Any) -> Comparison:
    row = Comparison(
        optimizer=label,
        n=3,
        mean=2.0,
        std=0.01,
        difference=None if verdict == "baseline" else 0.004,
        interval=None if verdict == "baseline" else (-0.012, 0.018),
        p_raw=None if verdict == "baseline" else 0.365,
        p_corrected=None if verdict == "baseline" else 0.73,
        verdict=verdict,
        why=f"Why {label} is so.",
        diverged=0,
        steps_to_baseline=80,
        seconds_per_step=0.02,
    )
    return dataclasses.replace(row, **changes)


def a_study(
    rows: Sequence[Comparison], runs: Sequence[Run], direction: Literal["min", "max"] = "min"
) -> Results:
    return Results(
        task="toy",
        metric="val_loss",
        direction=direction,
        steps=STEPS,
        seeds=sorted({run.seed for run in runs}),
        comparisons=list(rows),
        runs=list(runs),
        command="bandwise compare toy --seeds 3",
        versions={"torch": "2.13.0"},
    )


ENDS = {"adamw": (2.0, 2.01, 1.99), "smi-adamw": (1.99, 2.03, 2.0), "nsf": (1.9, 1.92, 1.88)}


@pytest.fixture
def study() -> Results:
    rows = [
        a_row("adamw", "baseline"),
        a_row("smi-adamw", "no detectable difference", mean=2.0067, seconds_per_step=0.03),
        a_row(
            "nsf", "better", mean=1.9, difference=-0.1, interval=(-0.11, -0.09), p_corrected=0.0001
        ),
    ]
    scheduled: dict[str, dict[str, Any]] = {
        "adamw": {},
        "smi-adamw": {"alpha": 0.3},
        "nsf": {"p": 0.7},
    }
    runs = [
        a_run(label, seed, end, **scheduled[label])
        for label, ends in ENDS.items()
        for seed, end in enumerate(ends)
    ]
    return a_study(rows, runs)


@pytest.fixture
def diverged() -> Results:
    """Results in which ``sgd`` diverges on one of three seeds, ``lion`` on all."""
    lost = {"mean": math.nan, "std": math.nan, "difference": math.nan, "interval": None}
    lost |= {"p_raw": None, "p_corrected": None, "steps_to_baseline": None}
    rows = [
        a_row("adamw", "baseline"),
        a_row("sgd", "worse", diverged=1, **lost),
        a_row("lion", "worse", diverged=3, **lost),
    ]
    runs = [a_run("adamw", seed, 2.0) for seed in range(3)]
    runs += [a_run("sgd", seed, 2.5, diverged=seed == 1) for seed in range(3)]
    runs += [a_run("lion", seed, 2.5, diverged=True) for seed in range(3)]
    return a_study(rows, runs)


@pytest.fixture
def one_seed() -> Results:
    alone = {"n": 1, "std": None, "interval": None, "p_raw": None, "p_corrected": None}
    rows = [
        a_row("adamw", "baseline", **alone),
        a_row("nsf", "one seed: cannot tell", **alone),
    ]
    return a_study(rows, [a_run("adamw", 0, 2.0), a_run("nsf", 0, 2.004)])


def typed(text: str) -> str:
    """The text in characters of a keyboard."""
    return text.replace(MINUS, "-").replace(TIMES, "x")


class Page(HTMLParser):
    """A page as a browser reads it: its text, its scripts and the addresses that it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.data: list[str] = []
        self._in: str | None = None
        self._type: str | None = None
        self.feed(text)
        self.text = typed(" ".join(self.text.split()))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self._in, self._type = tag, given.get("type")
        # A link to a place on the page loads nothing.
        self.loads += [
            f"{tag} {name}={value}"
            for name, value in attrs
            if name in {"src", "srcset", "href", "data", "poster"}
            and not (tag == "a" and str(value).startswith("#"))
        ]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        self._in = None

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            if self._type == "application/json":
                self.data.append(data)
        elif self._in != "style":
            self.text += data


def page_of(results: Results) -> Page:
    return Page(render_report(results, NOWHERE).replace(PLOTLY, ""))


def figure_of(results: Results, name: str) -> Figure:
    return next(figure for figure in study_figures(results) if figure.id == name)


def traces(figure: Figure, kind: str, name: str) -> list[go.Scatter]:
    return [trace for trace in figure.plot.data if trace.meta == kind and trace.name == name]


def printed(results: Results, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(study_table(results))
    return typed(out.getvalue())


def first_column(text: str) -> str:
    """The labels of a printed table. Labels on several lines are joined."""
    body = text.split("─\n")[-1].split('"Better"')[0]
    return "".join(row.split("  ")[0].strip() for row in body.splitlines())


def strings(data: Any) -> list[str]:
    """Every string in parsed JSON."""
    if isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, list):
        return [word for item in data for word in strings(item)]
    return [data] if isinstance(data, str) else []


# The page


def test_verdicts_come_first_and_in_sentences(study: Results) -> None:
    text = page_of(study).text
    first = (
        "smi-adamw: no detectable difference from adamw (n = 3): validation loss +0.004, "
        "95% t-interval -0.012 to +0.018"
    )
    second = (
        "nsf: better than adamw (n = 3): validation loss -0.100, 95% t-interval -0.110 to -0.090"
    )
    assert first in text
    assert second in text
    assert "Against adamw: 1 better, 1 with no detectable difference." in text
    assert "Why nsf is so." in text
    assert text.index(second) < text.index("The comparison") < text.index("What training looked")


def test_page_has_command_versions_and_every_configuration(study: Results) -> None:
    text = page_of(study).text
    assert "bandwise compare toy --seeds 3" in text
    assert "torch2.13.0" in text.replace(" ", "")
    shared, each = configurations(study)
    assert shared == {"task.name": "toy", "seed": "0, 1, 2", "optimizer.lr": "0.1"}
    assert each["nsf"] == {"optimizer.name": "nsf"}
    assert "What differs" in text
    assert "optimizer.name = nsf" in text


def test_a_setting_that_one_optimizer_lacks_is_not_shared(study: Results) -> None:
    runs = [
        dataclasses.replace(run, config={"a": 1} | ({} if run.optimizer == "adamw" else {"b": 2}))
        for run in study.runs
    ]
    shared, each = configurations(dataclasses.replace(study, runs=runs))
    assert shared == {"a": "1"}
    assert each == {"adamw": {}, "smi-adamw": {"b": "2"}, "nsf": {"b": "2"}}


def test_page_is_one_file_that_loads_nothing(study: Results) -> None:
    text = render_report(study, NOWHERE)
    assert text.count(PLOTLY) == 1
    page = page_of(study)
    assert page.loads == []
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    without = text.replace(PLOTLY, "")
    assert "http:" not in without
    assert "https:" not in without
    assert "@import" not in without
    assert "default-src 'none'" in without


HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "\"'><img src=x onerror=alert(3)>",
    "{{ 7 * 7 }}",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_text_of_the_user_becomes_markup(study: Results, hostile: str) -> None:
    rename = {"nsf": f"nsf {hostile}", "adamw": f"adamw {hostile}"}
    evil = dataclasses.replace(
        study,
        task=hostile,
        command=hostile,
        versions={hostile: hostile},
        comparisons=[
            dataclasses.replace(row, optimizer=rename.get(row.optimizer, "smi"), why=hostile)
            for row in study.comparisons
        ],
        runs=[
            dataclasses.replace(
                run,
                optimizer=rename.get(run.optimizer, "smi"),
                config={"name": hostile},
                folder=hostile,
                final=run.final | {hostile: 1.0},
                evals=[row | {f"val_{hostile}": 1.0 + row["step"]} for row in run.evals],
                lens=lens_rows(),
            )
            for run in study.runs
        ],
    )
    raw = render_report(evil, NOWHERE).replace(PLOTLY, "")
    if "<" in hostile:
        assert hostile not in raw
    page = Page(raw)
    assert hostile in page.text
    assert "alert" not in "".join(page.tags)
    assert "img" not in page.tags
    # One script per figure, plotly, and the page's own.
    assert page.tags.count("script") == page.tags.count("figure") + 2
    names = {trace.get("name") for data in page.data for trace in json.loads(data)["data"]}
    assert html.escape(f"nsf {hostile}") in names
    # Plotly reads tags in any text. The only one is our line break.
    words = [word for data in page.data for word in strings(json.loads(data))]
    assert not [word for word in words if "<" in word.replace("<br>", "")]


def test_figures_are_valid_json(study: Results, diverged: Results) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    for results in (study, diverged):
        data = page_of(results).data
        assert len(data) == len(study_figures(results))
        for text in data:
            json.loads(text, parse_constant=refuse)


def test_write_is_whole_or_nothing(
    study: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_report(study, tmp_path / "new")
    assert path == tmp_path / "new" / "report.html"
    before = path.read_text(encoding="utf-8")
    assert before.startswith("<!doctype html>")
    assert before.rstrip().endswith("</html>")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(study, path.parent)
    assert path.read_text(encoding="utf-8") == before
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


# Diverged runs and few runs


def test_diverged_runs_are_said_and_shown(diverged: Results) -> None:
    text = page_of(diverged).text
    assert "sgd: worse than adamw (n = 3): 1 of 3 seeds diverged" in text
    assert "lion: worse than adamw (n = 3): 3 of 3 seeds diverged" in text
    assert not re.search(r"\b(nan|inf|None)\b", text)
    loss = figure_of(diverged, "evals-val_loss")
    assert "sgd diverged on 1 of 3 seeds; lion diverged on 3 of 3 seeds" in loss.title
    (lost,) = traces(loss, "diverged", "sgd (1 of 3 seeds diverged)")
    assert lost.x == (10, 20, 30)
    assert traces(loss, "mean", "lion (3 of 3 seeds diverged)") == []
    shown = [trace for trace in loss.plot.data if trace.showlegend is not False]
    assert [trace.name.split()[0] for trace in shown] == ["adamw", "sgd", "lion"]


def test_a_diverged_seed_is_in_no_mean(diverged: Results) -> None:
    (sgd,) = [
        curve for curve in logged_curves(diverged, "evals", "val_loss") if curve.name == "sgd"
    ]
    assert sgd.seeds == 2
    assert sgd.x[-1] == STEPS
    assert sgd.mean[-1] == pytest.approx(2.5)


def test_a_diverged_baseline_leaves_nothing_to_compare(diverged: Results) -> None:
    runs = [dataclasses.replace(run, final={"val_loss": math.nan}) for run in diverged.runs[:3]]
    rows = [
        a_row("adamw", "baseline", mean=math.nan, diverged=3),
        a_row("sgd", "no detectable difference", difference=math.nan, interval=None),
    ]
    results = a_study(rows, [*runs, *(a_run("sgd", seed, 2.5) for seed in range(3))])
    assert "3 of 3 seeds of adamw diverged" in page_of(results).text
    assert "differences" not in [figure.id for figure in study_figures(results)]
    assert "3 of 3 diverged" in printed(results, 80)


def test_one_seed_says_that_it_cannot_tell(one_seed: Results) -> None:
    text = page_of(one_seed).text
    assert (
        "nsf: one seed cannot tell whether it differs from adamw (n = 1): "
        "validation loss +0.004, no interval" in text
    )
    loss = figure_of(one_seed, "evals-val_loss")
    assert [trace.meta for trace in loss.plot.data] == ["mean", "mean"]
    assert "Each line is one seed" in loss.note
    assert [trace.meta for trace in figure_of(one_seed, "differences").plot.data] == ["values"]
    assert "One seed each" in printed(one_seed, 80)


def test_one_optimizer_alone(study: Results) -> None:
    alone = a_study(study.comparisons[:1], study.runs_of("adamw"))
    page = page_of(alone)
    assert "adamw ran alone: there is nothing to compare it with." in page.text
    assert study_figures(alone)[0].id == "evals-val_loss"
    assert "ran alone" in printed(alone, 80)


# The lens


def test_without_a_lens_there_is_no_such_chapter(study: Results) -> None:
    assert "Through the lens" not in page_of(study).text
    assert 'class="lens"' not in render_report(study, NOWHERE)


def test_what_a_lens_recorded_is_a_chapter(study: Results) -> None:
    slopes = {"adamw": -1.0, "smi-adamw": -0.9, "nsf": -1.4}
    runs = [dataclasses.replace(run, lens=lens_rows(slopes[run.optimizer])) for run in study.runs]
    seen = dataclasses.replace(study, runs=runs)
    page = page_of(seen)
    assert "Through the lens" in page.text
    assert "Size slope: nsf evens steps out most (-1.40)" in page.text
    buttons = re.findall(
        r'data-group="(\d)">(?:<svg.*?</svg>)(.*?)</button>', render_report(seen, NOWHERE)
    )
    assert buttons == [("0", "adamw"), ("1", "smi-adamw"), ("2", "nsf")]
    assert len(page.data) > len(page_of(study).data) + 4
    ids = re.findall(r'<figure id="(.*?)"', render_report(seen, NOWHERE))
    assert len(set(ids)) == len(ids) == len(page.data)


def test_diverged_runs_are_not_in_the_lens(diverged: Results) -> None:
    runs = [dataclasses.replace(run, lens=lens_rows()) for run in diverged.runs]
    seen = dataclasses.replace(diverged, runs=runs)
    assert "Not drawn: 4 runs that diverged." in page_of(seen).text
    assert [len(some) for some in runs_of_study(seen, NOWHERE).values()] == [3, 2, 0]


def test_the_task_s_evaluations_are_rows_for_the_lens(study: Results) -> None:
    runs = [dataclasses.replace(run, lens=lens_rows()) for run in study.runs]
    errors = [{"step": step, "val_error_k1": 0.6} for step in (10, 20)]
    runs[0] = dataclasses.replace(runs[0], evals=errors)
    text = page_of(dataclasses.replace(study, runs=runs)).text
    assert "k = 1 is half learnt soonest by nsf (step 10)" in text
    assert "Not half learnt in the run, with so many seeds: adamw, k = 1 (1 of 3)." in text


def test_the_report_has_every_figure_of_the_lens_page(tmp_path: Path) -> None:
    """It also has the heat map of layers, whose rows are only in the logs."""
    results = compare("two-moons", "adamw", seeds=1, steps=40, lens=True, jobs=1, out=tmp_path)
    report, lens = (
        re.findall(r'<figure id="(lens-.*?)"', page.read_text(encoding="utf-8"))
        for page in (
            write_report(results, tmp_path),
            write_lens(runs_of_folders([tmp_path]), tmp_path),
        )
    )
    assert "lens-layers" in report
    assert report == lens


# Figures


def test_curves_are_mean_lowest_and_highest_over_seeds(study: Results) -> None:
    loss = figure_of(study, "evals-val_loss")
    for label, ends in ENDS.items():
        at = [[4 + (end - 4) * t / STEPS for end in ends] for t in range(10, STEPS + 1, 10)]
        (mean,) = traces(loss, "mean", label)
        (band,) = traces(loss, "band", label)
        assert mean.x == tuple(range(10, STEPS + 1, 10))
        assert mean.y == pytest.approx([statistics.fmean(values) for values in at])
        half = len(at)
        assert band.y[:half] == pytest.approx([max(values) for values in at])
        assert band.y[half:][::-1] == pytest.approx([min(values) for values in at])
        assert mean.legendgroup == band.legendgroup
    assert loss.title == "Validation loss: nsf ends lowest (1.9), smi-adamw highest (2.007)"
    assert loss.plot.layout.xaxis.title.text == "step"
    assert loss.plot.layout.yaxis.title.text == "Validation loss (lower is better)"


def test_the_first_view_shows_the_end_and_others_are_offered(study: Results) -> None:
    loss = figure_of(study, "evals-val_loss")
    bottom, top = loss.plot.layout.yaxis.range
    assert bottom < 1.88
    assert top < 3.8  # at step 10 every curve is above
    assert list(loss.views) == [
        "after the start",
        "close-up of the end",
        "whole run",
        "whole run, log scale",
    ]


def test_an_optimizer_far_off_does_not_hide_the_others(study: Results) -> None:
    far = [a_run("sgd", seed, 40.0) for seed in range(3)]
    rows = [*study.comparisons, a_row("sgd", "worse", difference=38.0, interval=(38.0, 38.1))]
    results = a_study(rows, [*study.runs, *far])
    loss = figure_of(results, "evals-val_loss")
    assert loss.plot.layout.yaxis.range[1] < 4
    assert "not in the first view: sgd" in loss.note
    dots = figure_of(results, "differences")
    assert dots.plot.layout.xaxis.range[1] < 1
    assert "not in the first view: sgd" in dots.note
    assert dots.views["all"]["xaxis.range"][1] > 38


def test_other_metrics_are_small_figures_beside(study: Results) -> None:
    other = figure_of(study, "evals-val_error_k1")
    assert other.small
    assert other.plot.layout.yaxis.title.text == "Validation error k1"
    (mean,) = traces(other, "mean", "nsf")
    assert mean.y[-1] == pytest.approx(1.9 / 101)


@pytest.mark.parametrize(("direction", "left"), [("min", "← better"), ("max", "← worse")])
def test_differences_are_each_seeds(
    study: Results, direction: Literal["min", "max"], left: str
) -> None:
    results = dataclasses.replace(study, direction=direction)
    figure = figure_of(results, "differences")
    (dots,) = traces(figure, "values", "smi-adamw")
    assert dots.x == pytest.approx([-0.01, 0.02, 0.01])
    assert differences(results)["smi-adamw"] == dict(enumerate(dots.x))
    (mean,) = traces(figure, "mean", "smi-adamw")
    assert mean.x[0] - mean.error_x.arrayminus[0] == pytest.approx(-0.012)
    assert mean.x[0] + mean.error_x.array[0] == pytest.approx(0.018)
    said = [note.text for note in figure.plot.layout.annotations]
    assert "baseline" in said
    assert left in said
    wins = {"min": "1 of 3 (smi-adamw), 3 of 3 (nsf)", "max": "2 of 3 (smi-adamw), 0 of 3 (nsf)"}
    assert wins[direction] in figure.title


def test_schedules_are_drawn_where_there_are_such(study: Results) -> None:
    drawn = {figure.id: figure for figure in study_figures(study)}
    (alpha,) = drawn["schedule-alpha"].plot.data
    assert (alpha.name, set(alpha.y)) == ("smi-adamw", {0.3})
    assert drawn["schedule-p"].title == "p of NSF: nsf stays at 0.7"
    (rate,) = drawn["schedule-lr"].plot.data
    assert rate.name == "every optimizer"
    assert rate.y[-1] == pytest.approx(10)
    without = a_study(study.comparisons[:1], study.runs_of("adamw"))
    assert not {"schedule-alpha", "schedule-p"} & {figure.id for figure in study_figures(without)}


def test_learning_rates_that_differ_have_a_line_each(study: Results) -> None:
    runs = [
        dataclasses.replace(run, training=[row | {"lr": 1.0} for row in run.training])
        if run.optimizer == "nsf"
        else run
        for run in study.runs
    ]
    figure = figure_of(dataclasses.replace(study, runs=runs), "schedule-lr")
    assert [trace.name for trace in figure.plot.data] == ["adamw", "smi-adamw", "nsf"]


def many() -> Results:
    labels = [f"nsf:p={i},betas=[0.9,0.999],eps=1e-8,decay=0.1"[:40] for i in range(11)]
    rows = [a_row("adamw", "baseline")]
    rows += [a_row(label, "no detectable difference") for label in labels]
    runs = [a_run("adamw", seed, 2.0) for seed in range(3)]
    runs += [a_run(label, seed, 2.0 + i) for i, label in enumerate(labels) for seed in range(3)]
    return a_study(rows, runs)


def test_twelve_optimizers_look_different() -> None:
    assert len({line(index) for index in range(12)}) == 12
    results = many()
    loss = figure_of(results, "evals-val_loss")
    means = [trace for trace in loss.plot.data if trace.meta == "mean"]
    assert [trace.name for trace in means] == [row.optimizer for row in results.comparisons]


# The terminal


@pytest.mark.parametrize("width", [80, 100])
def test_table_fits_and_keeps_every_word(study: Results, width: int) -> None:
    text = printed(study, width)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= width
    for words in ("2.007 ± 0.010", "+0.004", "0.80x", "better", "baseline", "n = 3 seeds"):
        assert words in text
    assert "-0.012 to +0.018" in text
    assert "no detectable" in text
    assert "paired t-test" in text
    assert "p < 0.05, corrected for 2 comparisons (Holm)" in " ".join(text.split())


@pytest.mark.parametrize("width", [80, 100])
def test_table_keeps_long_labels_and_their_brackets(width: int) -> None:
    results = many()
    text = printed(results, width)
    assert max(map(len, text.splitlines())) <= width
    labels = "".join(row.optimizer for row in results.comparisons)
    assert first_column(text) == labels


@pytest.mark.parametrize("label", ["nsf:betas=[0.9]", "[bold red]sgd[/]", ":smile: [/x]"])
def test_table_reads_no_markup_in_labels(study: Results, label: str) -> None:
    rows = [*study.comparisons[:2], dataclasses.replace(study.comparisons[2], optimizer=label)]
    assert label in printed(dataclasses.replace(study, comparisons=rows, task=label), 120)
    assert label in first_column(printed(dataclasses.replace(study, comparisons=rows), 120))


def test_table_shows_divergence(diverged: Results) -> None:
    text = printed(diverged, 80)
    assert "1 of 3 diverged" in text
    assert "3 of 3 diverged" in text
    assert "never" in text
    assert "nan" not in text


# Words and numbers


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("val_loss", "validation loss"),
        ("test_error_k1", "test error k1"),
        ("train_loss", "training loss"),
        ("perplexity", "perplexity"),
        ("val", "val"),
    ],
)
def test_readable(key: str, words: str) -> None:
    assert readable(key) == words


@pytest.mark.parametrize(
    ("mean", "std", "shown"),
    [
        (1.852, 0.006, "1.852 ± 0.006"),
        (1.852, 0.0012, "1.8520 ± 0.0012"),
        (1234.5, 30.0, "1,234 ± 30"),
        (1.852, 1e-12, "1.85200 ± 0.00000"),
        (1e-9, 1e-10, "1.00e-09 ± 1.00e-10"),
        (1.85234, None, "1.852"),
    ],
)
def test_decimals_show_the_spread(mean: float, std: float | None, shown: str) -> None:
    row = a_row("adamw", "baseline", mean=mean, std=std)
    decimals = Decimals.of(a_study([row], [a_run("adamw", 0, mean)]))
    assert typed(decimals.spread(row)) == shown


def test_zero_has_no_sign() -> None:
    assert Decimals(3).signed(-0.0001) == "0.000"
    assert Decimals(3).signed(0.0001) == "0.000"
    assert Decimals(3).signed(-0.001) == f"{MINUS}0.001"
    assert Decimals(3).plain(math.nan) == DASH


def test_pace_counts_steps_and_time(study: Results) -> None:
    smi = study.comparisons[1]
    assert pace(study, smi) == pytest.approx((0.8, 1.2))
    assert pace(study, dataclasses.replace(smi, steps_to_baseline=None)) is None
    assert "after 80 of 100 steps (0.80x), in 1.20x the time" in page_of(study).text


def test_a_diverged_seed_is_said_beside_a_difference(study: Results) -> None:
    row = dataclasses.replace(study.comparisons[1], diverged=1)
    assert sentence(study, row).endswith("+0.018; 1 of 3 seeds diverged")


def test_diverged_seeds_of_both_are_said(study: Results) -> None:
    """The verdict compares the two numbers, so both must be seen."""
    lost = {
        "mean": math.nan,
        "difference": None,
        "interval": None,
        "p_raw": None,
        "p_corrected": None,
    }
    rows = [
        a_row("adamw", "baseline", **lost, diverged=1),
        a_row("nsf", "worse", **lost, diverged=2),
    ]
    results = dataclasses.replace(study, comparisons=rows)
    assert sentence(results, rows[0]) == "the baseline (n = 3): 1 of 3 seeds diverged"
    assert sentence(results, rows[1]) == (
        "worse than adamw (n = 3): 2 of 3 seeds diverged; 1 of 3 seeds of adamw diverged"
    )


# Warnings about a study


def test_where_all_runs_diverged_the_reader_is_told_what_to_do(diverged: Results) -> None:
    lost = [a_run(label, 0, 2.5, diverged=True) for label in ("adamw", "nsf")]
    alone = {
        "mean": math.nan,
        "std": None,
        "interval": None,
        "p_raw": None,
        "p_corrected": None,
        "diverged": 1,
    }
    rows = [
        a_row("adamw", "baseline", n=1, **alone),
        a_row("nsf", "all diverged", n=1, **alone | {"difference": math.nan}),
    ]
    results = a_study(rows, lost)
    told = (
        "Every run diverged, the first by step 40: its loss became inf or NaN. "
        "Look at the task's loss, or try a lower --lr."
    )
    assert told in page_of(results).text
    assert told in " ".join(printed(results, 80).split())
    assert "nsf: every seed diverged, as did adamw's (n = 1)" in page_of(results).text
    assert "Every run diverged" not in page_of(diverged).text + printed(diverged, 80)


def test_an_optimizer_that_does_nothing_is_questioned(study: Results) -> None:
    why = "Identical to adamw on every seed: did the setting do anything?"
    row = dataclasses.replace(study.comparisons[1], verdict="identical", why=why)
    rows = [study.comparisons[0], row, study.comparisons[2]]
    results = dataclasses.replace(study, comparisons=rows)
    text = page_of(results).text
    assert "smi-adamw: identical to adamw on every seed (n = 3)" in text
    assert why in text
    assert "Against adamw: 1 better, 1 identical." in text
    assert f"smi-adamw: {why}" in " ".join(printed(results, 80).split())


def test_rough_times_have_a_footnote(study: Results) -> None:
    note = "The times (ms per step) are rough: runs were trained side by side, or not all in one"
    assert note in page_of(study).text
    assert note in " ".join(printed(study, 80).split())
    alone = dataclasses.replace(study, timed_alone=True)
    assert "are rough" not in page_of(alone).text + printed(alone, 80)
