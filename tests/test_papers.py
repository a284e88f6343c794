"""Papers: their parts run, are stored and resume. The ledger needs only stored data. Judges."""

import dataclasses
import importlib.metadata
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import papers
import pytest
import torch
import typer
from benchmarks.timing import Contender, Rounds, interleaved
from papers import __main__ as papers_cli
from papers import timing
from papers.ledger import Edition, rebuild
from papers.paper import Claim, Finding, Paper, Part, Regime, Table
from papers.reproduce import reproduce
from papers.smi import claims, measures, regimes, scales
from papers.smi.parts import modern, runs, sensitivity
from papers.stored import Study, final, read_part
from papers.verdicts import as_large, lower, percent, written
from rich.console import Console
from torch import nn

from bandwise import tasks
from bandwise.lens.quantities.weights import weight_figures
from bandwise.study import spec
from bandwise.study.by_name import build
from bandwise.study.paired import Sample
from bandwise.tasks import Recipe, shakespeare_char

SEEDS = 3
ROOT = Path(__file__).parents[1]


def quiet():
    return Console(file=open(os.devnull, "w"), force_terminal=False)  # noqa: PTH123


# --- a paper of two parts ------------------------------------------------------------------------


@pytest.fixture
def paper(monkeypatch):
    """A paper whose second part is interrupted the first time. It records the parts that run."""
    ran = []

    def first(context):
        ran.append("first")
        return {"value": 2.0, "seeds": context.seeds}

    def second(_context):
        ran.append("second")
        if ran.count("second") == 1:
            raise KeyboardInterrupt
        return {"value": math.inf}

    made = Paper(
        "smi", "A title", "A source",
        parts=(Part("first", "One", first), Part("second", "Two", second)),
        claims=(
            Claim("1", "a | b", "1", "first", lambda d: Finding(f"{d['value']}", True)),
            Claim("2", "later", "-2", "second", lambda d: Finding(f"{d['value']}", False)),
        ),
        tables=lambda data: [Table("T", "N", ("x", "y"), [["a", str(len(data))]])],
        figures=lambda data: [],
    )  # fmt: skip
    monkeypatch.setattr(papers, "load", lambda name: made)
    return ran


def test_what_was_stopped_goes_on_with_the_part_that_it_was_in(paper, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        reproduce("smi", out=tmp_path, console=quiet())
    assert [p.name for p in (tmp_path / "results").iterdir()] == ["smi-first-small.json"]
    reproduce("smi", out=tmp_path, console=quiet())
    assert paper == ["first", "second", "second"]
    stored = json.loads((tmp_path / "results/smi-first-small.json").read_text())
    assert stored["data"] == {"value": 2.0, "seeds": None}
    assert stored["command"] == "python -m papers reproduce smi --scale small --part first"
    assert stored["versions"]["torch"] == importlib.metadata.version("torch")
    reproduce("smi", out=tmp_path, parts=["first"], seeds=5, console=quiet())  # other settings
    reproduce("smi", out=tmp_path, parts=["first"], seeds=5, again=True, console=quiet())
    assert paper[3:] == ["first", "first"]


def test_a_part_or_scale_that_there_is_not(paper, tmp_path):
    with pytest.raises(ValueError, match="parts must be one of first, second, got 'third'"):
        reproduce("smi", out=tmp_path, parts=["third"], console=quiet())
    with pytest.raises(ValueError, match="scale must be one of small, paper, got 'huge'"):
        reproduce("smi", "huge", out=tmp_path, console=quiet())
    assert paper == []


def test_the_ledger_says_what_is_not_measured_and_is_the_same_every_time(paper, tmp_path):
    with pytest.raises(FileNotFoundError, match="python -m papers reproduce"):
        rebuild(tmp_path, tmp_path / "claims.md")
    with pytest.raises(KeyboardInterrupt):
        reproduce("smi", out=tmp_path, console=quiet())
    written = rebuild(tmp_path / "results", tmp_path / "claims.md")
    text = written[0].read_text()
    assert "| 1 | a \\| b | 1 | 2.0 | **reproduced** |  | first |" in text
    assert (
        "| 2 | later | \N{MINUS SIGN}2 | not measured | **cannot tell yet** |  | second |" in text
    )
    assert "| a | 1 |" in text
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in rebuild(tmp_path / "results", written[0])] == before
    (tmp_path / "results/smi-second-small.json").write_text("[]")
    with pytest.raises(ValueError, match="does not hold a part's results"):
        rebuild(tmp_path / "results", tmp_path / "claims.md")


def test_claims_are_set_beside_what_is_stored_without_what_only_training_needs(tmp_path):
    """Optuna and pytorch_optimizer are missing. A part that needs them fails at once."""
    results = ROOT / "papers" / "results"
    if not results.is_dir():
        pytest.skip("papers/results is not beside the tests")
    shutil.copytree(results, tmp_path / "results")
    code = """
import sys
sys.modules["optuna"] = sys.modules["pytorch_optimizer"] = None
import runpy
runpy.run_module("papers", run_name="__main__")
"""

    def command(*words):
        command = [sys.executable, "-c", code, *words]
        env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", ROOT)))}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    done = command("claims", "results", "--out", "claims.md")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} >= {"claims.md", "nsf-small.html"}
    done = command("reproduce", "nsf", "--part", "tuned")
    assert done.returncode == 1
    assert "the part 'tuned' needs the package 'optuna': pip install" in done.stderr


# --- the SMI paper, tiny --------------------------------------------------------------------------


def test_the_smi_paper_from_end_to_end(monkeypatch, tmp_path):
    pytest.importorskip("pytorch_optimizer")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("The quick brown fox jumps over the lazy dog. " * 80)
    small = scales.SCALES["small"]
    tiny = dataclasses.replace(
        small,
        task_options={"corpus": str(corpus), "batch_size": 2},
        steps=10,
        short_steps=2,
        seeds=2,
        short_seeds=2,
        domain_steps=dict.fromkeys(small.domain_steps, 2),
        domain_seeds=2,
        rounds=Rounds(warmup=0, least=2, most=2, seconds=0),
        models=small.models[:2],
        batch=2,
    )
    monkeypatch.setitem(scales.SCALES, "small", tiny)
    threads = []

    def spied(*given):
        threads.append(torch.get_num_threads())
        return interleaved(*given)

    monkeypatch.setattr(timing, "interleaved", spied)
    paths = reproduce("smi", out=tmp_path, jobs=1, console=quiet())
    # Inference, two sizes of the overhead, other optimizers: their times are compared.
    assert threads == [timing.THREADS] * 4
    assert [path.name for path in paths] == [
        f"smi-{name}-small.json"
        for name in ("runs", "inference", "overhead", "optimizers", "sensitivity", "domains")
    ]
    assert all(path.stat().st_size < 300_000 for path in paths)
    for path in paths[1:4]:
        assert read_part(path)["data"]["threads"] == timing.THREADS
    ledger, page = rebuild(tmp_path / "results", tmp_path / "claims.md")
    text = ledger.read_text()
    for number in range(1, 11):
        assert f"### Table {number}" in text
    assert "not measured" not in text.split("### How")[0]
    for number in range(2, 6):
        assert f"Figure {number}" in page.read_text()


def test_contenders_run_on_one_number_of_threads_which_is_restored():
    before = torch.get_num_threads()
    seen = []
    contenders = [
        Contender(name, lambda: seen.append(torch.get_num_threads())) for name in ("a", "b")
    ]
    torch.set_num_threads(2)
    try:
        found = timing.in_turns(contenders, Rounds(0, 2, 2, 0), torch.device("cpu"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [timing.THREADS] * 4
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 2, "b": 2}


# --- stored results ------------------------------------------------------------------------------

STORED = sorted((ROOT / "papers" / "results").glob("*.json"))


def studies_in(data):
    if isinstance(data, dict):
        if "runs" in data:
            yield data
        for value in data.values():
            yield from studies_in(value)


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_what_is_stored_names_commands_and_optimizers_that_there_are(path):
    part = read_part(path)
    assert "crc32" in json.loads(path.read_text())  # damage shows
    words = shlex.split(part["command"])
    assert words[:3] == ["python", "-m", "papers"]
    with typer.main.get_command(papers_cli.app).make_context("papers", words[3:]) as context:
        name, command, rest = context.command.resolve_command(context, words[3:])
        given = command.make_context(name, rest, parent=context).params
    assert (name, given["paper"], given["part"]) == ("reproduce", part["paper"], [part["part"]])
    assert {"seeds": given["seeds"], "device": given["device"]} == part["settings"]
    assert part["part"] in {each.name for each in papers.load(part["paper"]).parts}
    for stored in studies_in(part["data"]):
        words = shlex.split(stored["command"])
        assert words[:4] == ["python", "-m", "bandwise", "compare"]
        assert tasks.find(words[4]).name == stored["task"]
        texts = Study(stored).optimizers
        assert words[words.index("--optimizers") + 1] == ",".join(texts)
        for text in texts:
            named = [("token.weight", nn.Parameter(torch.zeros(3, 3)))]
            build(spec.parse(text), named, 1e-3, Recipe(steps=10, lr=1e-3))


# --- judges ---------------------------------------------------------------------------------------


def differences(mean, spread=0.1):
    return Sample(tuple(mean + spread * x for x in (-1, 0, 0.5, 0.5)))


@pytest.mark.parametrize(
    ("found", "claimed", "holds"),
    [
        (differences(-4), -5, True),
        (differences(4), 5, True),
        (differences(-1), -5, False),  # real, but too small
        (differences(4), -5, False),  # the other way
        (differences(0), -5, False),  # none, and half as large is ruled out
        (differences(-3, 10), -5, None),
        (Sample((-4.0,)), -5, None),  # one seed
        (Sample((-4.0, None, -4.1)), -5, None),
        (Sample((-4.0, None, -4.1), (False, True, False)), -5, False),
        # Steps may be known of a run that diverged later. It supports no claim.
        (Sample((-4.0, -4.2, -4.1), (False, True, False)), -5, False),
        (Sample((-4.0, -4.2), (False, True), (True, False)), -5, None),
        (Sample((-4.0, -4.2), (False, False), (True, False)), -5, None),
        (differences(-2.6, 0.5), -5, True),
    ],
)
def test_a_difference_is_judged_by_half_of_what_is_claimed(found, claimed, holds):
    assert as_large(found, claimed) == holds


def test_a_difference_in_words():
    assert percent(Sample((1.0, 3.0))) == "+2.00% [\N{MINUS SIGN}10.71, +14.71], n = 2"
    assert written(Sample((-1.0,)), "+.2f") == "\N{MINUS SIGN}1.00, n = 1"
    assert percent(Sample((None,))) == "no figure for every seed, n = 1"


def run(optimizer, seed, loss, **more):
    """A stored run whose losses fall linearly from twice the last one."""
    steps = list(range(1, 101))
    return {
        "optimizer": optimizer, "seed": seed, "diverged": False, "steps": 100,
        "seconds_per_step": 0.01,
        "final": {"val_loss": loss, "train_loss": loss},
        "evals": {"step": [0, 100], "val_loss": [2 * loss, loss]},
        "training": {"step": steps, "train_loss": [loss * (2 - s / 100) for s in steps]},
        **more,
    }  # fmt: skip


def study(losses, metric="val_loss", direction="min"):
    """A stored study with each optimizer at its loss. Seeds differ a little."""
    made = [
        run(text, seed, own) | {"final": {metric: own, "train_loss": own}}
        for text, loss in losses.items()
        for seed in range(SEEDS)
        for own in (loss * (1 + 0.001 * (seed - 1)),)
    ]
    seeds = list(range(SEEDS))
    return {"metric": metric, "direction": direction, "steps": 100, "seeds": seeds, "runs": made}


def test_a_run_that_diverged_keeps_no_claim_and_a_baseline_that_did_decides_none():
    data = study({runs.ADAMW: 1.0, runs.COSINE: 0.5})
    maintained = next(claim for claim in claims.CLAIMS if claim.where == "abstract")
    assert maintained.judge({"study": data}).holds is True
    last = {text: Study(data).runs(text)[-1] for text in (runs.ADAMW, runs.COSINE)}
    for diverged, holds in (
        ((runs.COSINE,), False),
        ((runs.ADAMW,), None),
        ((runs.ADAMW, runs.COSINE), None),
    ):
        for text, each in last.items():
            each["diverged"] = text in diverged
        assert maintained.judge({"study": data}).holds == holds
        less = Study(data).difference(runs.COSINE, runs.ADAMW, final("val_loss"))
        assert lower(less) == holds


def test_iterations_variance_and_roughness_of_a_known_run():
    known = run("adamw", 0, 1.0)
    assert measures.iterations_to("evals", 1.5)(known) == 50
    assert measures.iterations_to("evals", 0.9)(known) is None
    # The mean of eight losses, 0.01 apart, is the loss 3.5 steps before.
    assert measures.iterations_to("training", 1.5)(known) == 54
    assert measures.roughness(known) == pytest.approx(0.01)
    late = torch.arange(81, 101) / 100
    assert measures.late_variance(known) == pytest.approx(late.var(correction=0).item())


def test_thresholds_are_the_paper_s_or_where_our_baseline_is_as_far():
    made = study({runs.ADAMW: 1.0})
    assert measures.thresholds({"study": made, "thresholds": [1.0, 1.5]}) == (1.0, 1.5)
    train, val = measures.thresholds({"study": made, "thresholds": None})
    assert train == pytest.approx(2 - 0.25 + 0.035)
    assert val == pytest.approx(1.0)  # evaluations are only at 0 and 100


@pytest.mark.parametrize(("top", "holds"), [(0.9, True), (1.1, False), (0.9999, None)])
def test_the_best_of_the_runs(top, holds):
    losses = dict.fromkeys(runs.RUNS.values(), 1.0) | {runs.TOP_75: top}
    made = study(losses)
    if holds is None:
        for seed, each in enumerate(Study(made).runs(runs.TOP_75)):
            each["evals"]["val_loss"][-1] += 0.01 * (seed - 1)
    assert claims.best_validation({"study": made}).holds is holds


def timings(percent, spread=0.1):
    return [{"median": percent + spread * x, "interval": [0, 1]} for x in (-1, 0, 1)]


@pytest.mark.parametrize(
    ("percent", "spread", "holds"),
    [(15, 0.1, True), (0.2, 0.1, False), (6, 10, None)],
)
def test_inference(percent, spread, holds):
    faster = {text: timings(percent, spread) for text in list(runs.RUNS.values())[1:]}
    data = {"faster": faster, "control": timings(0)}
    assert claims.faster(data).holds == claims.all_faster(data).holds == holds
    assert "two seeds of AdamW differ by up to 0.10%" in claims.faster(data).ours


def size(parameters, ratios, base=1.0):
    return {
        "parameters": parameters,
        "context": 64,
        "seconds": {"AdamW": [base] * len(ratios), "SMI around AdamW": [base * r for r in ratios]},
        "state_bytes": {"AdamW": 8 * parameters, "SMI around AdamW": 10 * parameters},
    }


def test_overhead_and_memory_are_said_with_what_they_depend_on():
    data = {"batch": 16, "sizes": [size(1000, [1.04, 1.05, 1.045] * 5)]}
    assert claims.overhead(data) == Finding(
        "+4.5% [+4.0, +5.0] at 1,000 parameters and 1,024 tokens a step, 15 rounds"
    )
    assert claims.doubled(data) == Finding(
        "+25%: 2.00 bytes a parameter on AdamW's 8.00 for half a spectrum; Algorithm 1 keeps a "
        "whole one, +50%"
    )
    assert claims.one_tensor(data).holds is True


@pytest.mark.parametrize(
    ("gammas", "holds"),
    [((0.05,) * 4, True), ((0.5,) * 4, False), ((0.05,) * 2, None)],
)
def test_the_law_of_cost(gammas, holds):
    sizes = [
        size(10**n, [1 + gamma * math.log(10**n)] * 3) for n, gamma in enumerate(gammas, start=3)
    ]
    data = {"batch": 16, "sizes": sizes}
    assert measures.law(data).gamma == pytest.approx(gammas[0])
    assert claims.scaling(data).holds == holds


@pytest.mark.parametrize(("change", "holds"), [(0.99, True), (1.1, False), (1.009, None)])
def test_combined_with_other_optimizers(change, holds):
    texts = {
        label: {str(factor): text for factor, text in by_factor.items()}
        for label, by_factor in modern.texts(1e-3).items()
    }
    losses = {
        text: (change if label.startswith("SMI+") else 1.0) + (0 if factor == "1.0" else 0.5)
        for label, by_factor in texts.items()
        for factor, text in by_factor.items()
    }
    made = study(losses)
    for each in made["runs"]:
        # Noise that is the seed's alone cancels in pairs; this one does not.
        if "smi-" in each["optimizer"] and holds is None:
            each["final"]["val_loss"] += 0.01 * (each["seed"] - 1)
    assert claims.combined({"study": made, "texts": texts}).holds == holds
    assert claims.best_text(Study(made), texts["SAM"])[0] == "1.0"


def test_the_time_and_memory_of_other_optimizers():
    steps = {
        "AdamW": {"seconds": [1.0] * 5, "state_bytes": 80},
        "Lion": {"seconds": [1.0] * 5, "state_bytes": 40},
        "SAM": {"seconds": [1.8, 1.9, 1.8, 1.85, 1.8], "state_bytes": 80},
        "Sophia": {"seconds": [1.2] * 5, "state_bytes": 80},
    }
    assert claims.lion_memory({"steps": steps}).holds is True
    assert claims._time("SAM", 1.5, 2)({"steps": steps}).holds is True
    assert claims._time("Sophia", 2, 3)({"steps": steps}).holds is False
    steps["SAM"]["seconds"] = [1.2, 2.5, 1.8, 1.4, 2.2]
    assert claims._time("SAM", 1.5, 2)({"steps": steps}).holds is None


@pytest.mark.parametrize("varied", ["Alpha schedule", "EMA decay (β)"])
def test_the_best_value_and_a_good_default(varied):
    names = [runs.ADAMW, sensitivity.BEST, *alternatives()]
    losses = dict.fromkeys(names, 1.0) | dict.fromkeys(sensitivity.VARIED[varied].values(), 1.2)
    data = study(losses)
    found = claims.most_sensitive(data)
    assert found.holds is None
    assert f"{varied} 20.00%" in found.ours
    assert claims._best_value(varied)(data).holds is True
    for best, optimal, default in ((1.005 * 1.2, False, True), (1.4, False, False)):
        losses[sensitivity.BEST] = best
        assert claims._best_value(varied)(study(losses)).holds is optimal
        assert claims._best_value(varied, claims.MARGIN)(study(losses)).holds is default


def test_noise_makes_each_setting_the_most_sensitive_equally_often():
    """Also with five, four and three values. A comparison of ranges would favour alpha."""
    generator = np.random.default_rng(0)
    names = list(sensitivity.VARIED)[:3]
    trials, widest = 500, dict.fromkeys(names, 0)
    for _ in range(trials):
        losses = dict.fromkeys([sensitivity.BEST, *alternatives()], 1.0)
        data = study(losses)
        for each in data["runs"]:
            each["final"]["val_loss"] = 1.0 + 0.01 * generator.normal()
        moved = {name: claims.sensitivity(Study(data), name).mean for name in names}
        widest[max(moved, key=moved.get)] += 1
    error = 3 * math.sqrt(1 / 3 * 2 / 3 / trials)
    assert all(abs(count / trials - 1 / 3) < error for count in widest.values())


def alternatives():
    return [text for by_value in sensitivity.VARIED.values() for text in by_value.values()]


def test_what_authors_see_as_a_possibility_is_measured_and_not_judged():
    made = study({"adamw": 100.0, "smi-adamw:min_ndim=1": 120.0}, "val_reward", "max")
    found = claims._domain("cart-pole")({"cart-pole": made})
    assert found.holds is None
    assert found.ours.startswith("+20.00% [")
    assert found.ours.endswith("in reward")


@pytest.mark.parametrize(("loss", "holds"), [(0.9, True), (1.005, True), (1.02, False)])
def test_to_maintain_is_to_lose_at_most_the_margin(loss, holds):
    data = {"study": study({runs.ADAMW: 1.0, runs.COSINE: loss})}
    first, second = (claim for claim in claims.CLAIMS if claim.comparison == "Run 5's loss")
    assert first.judge(data).holds is second.judge(data).holds is holds


def test_the_validation_loss_of_a_run_is_its_best():
    rising = run("adamw", 0, 1.0)
    rising["evals"]["val_loss"] = [3.0, 0.5, 1.0]
    assert measures.best_val(rising) == 0.5


def test_a_variance_of_means_is_not_one_of_single_losses():
    data = {"study": study({runs.ADAMW: 1.0, runs.COSINE: 0.1})}
    judge = claims._late(-43.5, runs.COSINE, runs.ADAMW)
    assert judge(data).holds is True
    for each in data["study"]["runs"]:
        each["training"]["step"] = [5 * step for step in each["training"]["step"]]
        each["steps"] = 500
    found = judge(data)
    assert found.holds is None
    assert found.why == "the paper's are losses of single iterations, ours are means over 5"


# --- verdicts -------------------------------------------------------------------------------------

REGIME = Regime("1 epoch here, 82 in the paper", "64 tokens a step here, 128 in the paper")


@pytest.mark.parametrize(
    ("holds", "more", "verdict"),
    [
        (True, {}, ("reproduced", "")),
        (False, {}, ("not reproduced at this scale", REGIME.length)),
        (False, {"scale": "does not matter"}, ("contradicted", "")),
        (True, {"scale": "does not matter"}, ("reproduced", "")),
        (None, {"scale": "does not matter"}, ("cannot tell yet", "why")),
        (None, {}, ("cannot tell yet", "why")),
        *((holds, {"scale": "same tokens"}, ("cannot tell yet", REGIME.tokens))
          for holds in (True, False, None)),
        *((holds, {"undefined": "no formula"}, ("not defined in the paper", "no formula"))
          for holds in (True, False, None)),
    ],
)  # fmt: skip
def test_a_verdict_says_what_scale_and_definition_allow(holds, more, verdict):
    claim = Claim("1", "a", "1", "first", lambda data: Finding(""), **more)
    assert claim.verdict(Finding("", holds, "why" if holds is None else ""), REGIME) == verdict


def test_where_tokens_are_the_same_times_are_judged():
    claim = Claim("1", "a", "1", "first", lambda data: Finding(""), scale="same tokens")
    assert claim.verdict(Finding("", True), Regime("")) == ("reproduced", "")
    assert claim.verdict(Finding("", False), Regime("x")) == ("not reproduced at this scale", "x")


def edition(outcomes, **more):
    """A paper with a claim for each outcome, by the names of their comparisons."""
    made = [
        Claim("1", f"{name} {i}", "", "first", lambda data, holds=holds: Finding("", holds),
              name if name.strip() else "", **more)
        for name, row in outcomes.items()
        for i, holds in enumerate(row)
    ]  # fmt: skip
    paper = Paper("smi", "A title", "A source", (), made, lambda data: (), lambda data: ())
    return Edition(paper, "small", {"first": {"data": {}}})


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        ((True, True), "reproduced"),
        ((True, None), "cannot tell yet"),
        ((True, False, None), "not reproduced at this scale"),
        ((None, None), "cannot tell yet"),
    ],
)
def test_claims_that_rest_on_one_comparison_count_once(row, verdict):
    assert edition({"losses": row}).counts() == {verdict: 1}
    alone = edition({"": row}).counts()
    assert alone.total() == len(row)
    both = edition({"losses": row, "speed": (True,), "": (False,)}).counts()
    assert both.total() == 3
    assert edition({"losses": row}, undefined="x").counts() == {"not defined in the paper": 1}


@pytest.mark.parametrize("name", papers.NAMES)
def test_claims_of_one_comparison_have_one_part_scale_and_kind(name):
    """Else no rule says how they count together."""
    groups = {}
    for claim in papers.load(name).claims:
        if claim.comparison:
            kind = (claim.part, claim.scale, bool(claim.undefined))
            groups.setdefault(claim.comparison, []).append(kind)
    assert groups
    for kinds in groups.values():
        assert len(kinds) > 1
        assert len(set(kinds)) == 1


@pytest.mark.parametrize("name", papers.NAMES)
def test_every_part_that_decides_a_claim_of_the_paper_is_one_of_it(name):
    paper = papers.load(name)
    parts = {part.name for part in paper.parts}
    assert {claim.part for claim in (*paper.claims, *paper.apart, *paper.beyond)} <= parts


def test_the_paper_s_regime_and_ours_are_those_of_the_task():
    task = tasks.load(runs.TASK, scales.SCALES["small"].task_options)
    inputs, _ = task.batch(0, 1)
    parameters = sum(param.numel() for param in task.model().parameters())
    ours = regimes.OURS["small"]
    assert (ours.parameters, ours.tokens) == (parameters, inputs.numel())
    assert ours.text == len(task._train)
    paper = shakespeare_char._SIZES["paper"]
    assert regimes.THEIRS.tokens == paper.batch_size * paper.network.context
    # nanoGPT trains on the first nine tenths of 1,115,394 characters.
    assert regimes.THEIRS.text == 1_115_394 * 9 // 10
    found = regimes.regime("runs", "small")
    assert found.length.startswith("0.23 epochs with 0.346M parameters here, 82 epochs with 10.7M")
    assert found.tokens == "1,024 tokens a step here, 16,384 in the paper"
    assert regimes.regime("overhead", "small").tokens == found.tokens
    assert not regimes.regime("runs", "paper").tokens + regimes.regime("overhead", "paper").tokens
    assert regimes.regime("optimizers", "small").length.startswith("0.068 epochs")
    assert regimes.regime("domains", "small").length == ""


def test_a_change_is_of_the_baseline_s_mean():
    made = Study(study({"adamw": 2.0, "other": 1.0}))
    change = made.change("other", "adamw", final("val_loss"))
    assert change.values == pytest.approx([-49.95, -50.0, -50.05])


# --- SAM and Sophia -------------------------------------------------------------------------------


def test_sophia_finds_the_diagonal_of_a_hessian():
    sam_sophia = pytest.importorskip("papers.smi.sam_sophia", exc_type=ImportError)
    scale = torch.tensor([1.0, 4.0, 0.5])
    weights = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
    optimizer = sam_sophia.sophia([weights], lr=1e-3, weight_decay=0.0)
    calls = []

    def closure():
        optimizer.zero_grad()
        loss = (0.5 * scale * weights.square()).sum()
        loss.backward()
        calls.append(loss.item())
        return loss.detach()

    for _ in range(11):
        optimizer.step(closure)
    # One evaluation per step, and two more at steps 1 and 11.
    assert len(calls) == 11 + 4
    assert optimizer.state[weights]["hessian"] == pytest.approx(scale, rel=1e-3)
    assert calls[-3] < calls[0]


def test_sam_steps_by_the_gradient_uphill():
    sam_sophia = pytest.importorskip("papers.smi.sam_sophia", exc_type=ImportError)
    weight = nn.Parameter(torch.tensor([1.0, 0.0]))
    optimizer = sam_sophia.sam([weight], lr=1e-2, rho=0.5, weight_decay=0.0)
    seen = []

    def closure():
        optimizer.zero_grad()
        seen.append(weight.detach().clone())
        loss = weight.square().sum()
        loss.backward()
        return loss.detach()

    assert optimizer.step(closure) == 1.0
    assert torch.allclose(seen[1], torch.tensor([1.5, 0.0]))
    assert torch.allclose(weight, torch.tensor([0.99, 0.0]))


# --- Tables 2 and 4 ------------------------------------------------------------------------------


class Tied(nn.Module):
    """Two layers, one of them used twice, beside a norm and a bias that do not count."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.again = nn.Linear(2, 2)
        self.again.weight = self.first.weight
        self.norm = nn.LayerNorm(2)
        self.second = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.diag(torch.tensor([3.0, 1.0])))
            self.second.weight.copy_(torch.diag(torch.tensor([5.0, -5.0])))


def test_a_models_figures_are_averages_over_its_layers():
    model = Tied()
    figures = runs.model_figures(model)
    assert figures["average_spectral_norm"] == pytest.approx(4)
    assert figures["spectral_norm_variance"] == pytest.approx(1)
    assert figures["condition_number"] == pytest.approx((3 + 1) / 2)
    layers = [weight_figures(model.first.weight), weight_figures(model.second.weight)]
    for name, row in [
        ("condition_number", "median_condition_number"),
        ("effective_rank_ratio", "effective_rank_ratio"),
        ("magnitude_variance", "parameter_magnitude_variance"),
        ("kurtosis", "kurtosis"),
        ("effective_parameter_ratio", "effective_parameter_ratio"),
    ]:
        assert figures[row] == pytest.approx(sum(layer[name] for layer in layers) / 2), row


def test_one_square_layer_does_not_move_the_median_condition_number():
    diagonals = [torch.ones(2), torch.tensor([2.0, 1.0]), torch.tensor([1.0, 1e-5])]
    model = nn.ParameterList([torch.diag(diagonal) for diagonal in diagonals])
    figures = runs.model_figures(model)
    assert figures["condition_number"] == pytest.approx((1 + 2 + 1e5) / 3)
    assert figures["median_condition_number"] == pytest.approx(2)


def test_a_model_without_layers_is_refused():
    with pytest.raises(ValueError, match="two or more dimensions, got none"):
        runs.model_figures(nn.LayerNorm(3))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_layer_is_named(value):
    model = Tied()
    with torch.no_grad():
        model.second.weight[0, 1] = value
    with pytest.raises(ValueError, match=r"second\.weight: matrix must be finite"):
        runs.model_figures(model)
