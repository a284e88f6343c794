"""The NSF paper: judges on data made by hand, parts with few steps, optimizers by layer."""

import copy
import io
import json
from dataclasses import replace

import pytest
import torch
from papers.nsf import PAPER, authors, claims, parts, regimes, scales
from papers.nsf.by_layer import MuonAdamW, layer_kind, nsf_by_layer
from papers.nsf.factored import FactoredNSF, split
from papers.paper import Context
from papers.stored import Study, final
from papers.verdicts import lower, written
from rich.console import Console
from torch import nn

import bandwise as bw
from bandwise.files import to_json
from bandwise.study.paired import Sample
from bandwise.tasks import Recipe, cifar10, mnist_5k, shakespeare_char
from bandwise.tasks.gpt import GPT, GPTConfig
from jpegs import write_jpegs

CYCLE = "nsf:p=cyclic(0.5,-0.25,100)"


def study(finals, *, metric="val_loss", steps=100, **more):
    """A stored study from the final metric of every seed by optimizer. None is a divergence."""
    runs = [
        {
            "optimizer": optimizer,
            "seed": seed,
            "diverged": value is None,
            "seconds_per_step": 1.0,
            "final": {metric: value, metric.replace("val", "test"): value},
            "evals": {"step": [0, steps], metric: [9.0, value]},
            "lens": [],
        }
        for optimizer, row in finals.items()
        for seed, value in enumerate(row)
    ]
    return {"metric": metric, "direction": "min", "steps": steps, "runs": runs, **more}


BASE = (1.0, 1.1, 0.9, 1.05, 0.95)


def shifted(by, spread=0.01, n=5):
    return [b + by + spread * (-1) ** i for i, b in enumerate(BASE[:n])]


SHIFTS = [
    (shifted(-0.1), True),
    (shifted(0.1), False),
    # That five seeds show nothing says no more than that three do.
    (shifted(0.0, 0.1), None),
    (shifted(0.0, 0.1, 3), None),
    (shifted(-0.1, n=1), None),
    ([*shifted(-0.1)[:4], None], False),
]


# --- judges -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ours", "holds"), SHIFTS)
def test_lower_figures(ours, holds):
    finals = {"adamw": BASE[: len(ours)], CYCLE: ours, "nsf:p=0.7": ours}
    assert claims.lower_loss(study(finals)).holds == holds
    assert claims.seven_tenths(study(finals)).holds == holds
    images = study(finals, metric="val_error")
    assert claims.lower_test_error({"mnist-5k": images}).holds == holds
    lengths = {"500": study(finals), "1000": study(finals)}
    assert claims.at_every_length(lengths).holds == holds


def test_no_claim_of_the_abstract_is_decided_by_a_cycle_a_measure_or_a_text_of_ours():
    """Only the part with the authors' rule and regime may decide one."""
    everything = {
        "lead": study({"adamw": BASE, CYCLE: shifted(-0.1)}),
        "images": aligning(20, 60),
        "response": response({"adam": -0.5, "sgd:lr=0.05": 0.0, "nsf:p=-0.5": 0.5}),
    }
    for claim in PAPER.claims:
        if claim.part != "authors":
            found = claim.judge(everything[claim.part])
            assert found.holds is None
            assert "abstract" in found.why
            assert "ours" in found.why
    assert claims.lower_loss(everything["lead"]).holds is True


def test_the_epochs_of_images_are_those_of_the_task():
    task = mnist_5k.Mnist5k()
    assert regimes.MNIST == (task.batch_size, len(task._data["train"][1]))
    kinds = (("images", "small"), ("authors", "small"), ("authors", "paper"))
    epochs = ((21, 2.84), (32, 7.11), (32, 150))
    theirs = "the paper's are not known to us, 150 in its authors' earlier code"
    for (part, scale), (mnist, cifar) in zip(kinds, epochs, strict=True):
        here = f"{mnist} epochs of MNIST-5k, {cifar} of CIFAR-10 here"
        assert regimes.regime(part, scale).length == f"{here}; {theirs}"
    assert regimes.regime("lead", "small").length == ""


def test_a_finding_says_what_was_measured():
    data = study({"adamw": BASE, CYCLE: shifted(-0.1, 0.01)})
    assert (
        claims.lower_loss(data).ours
        == "\N{MINUS SIGN}0.098 [\N{MINUS SIGN}0.1116, \N{MINUS SIGN}0.0844], n = 5"
    )
    images = {"mnist-5k": study({"adamw": BASE, CYCLE: shifted(-0.1)}, metric="val_error")}
    assert (
        "mnist-5k: \N{MINUS SIGN}9.80 points [\N{MINUS SIGN}11.16, \N{MINUS SIGN}8.44], n = 5"
        in claims.lower_test_error(images).ours
    )


def test_the_test_error_is_that_of_the_test_split():
    data = study({"adamw": BASE, CYCLE: shifted(-0.1)}, metric="val_error")
    for run in Study(data).runs(CYCLE):
        run["final"]["test_error"] += 0.3
    assert claims.lower_test_error({"mnist-5k": data}).holds is False


def test_consistently_means_on_every_task_and_some_means_one():
    good, bad = (study({"adamw": BASE, CYCLE: shifted(by)}) for by in (-0.1, 0.1))
    skipped = {"skipped": "no file"}
    for data, holds in (
        ({"a": good, "b": bad}, False),
        ({"a": good, "b": skipped}, True),
        ({"b": skipped}, None),
    ):
        assert claims.lower_test_error(data).holds == holds
    early, late = curves(20, 100), curves(60, 100)
    assert claims.faster({"a": early, "b": late}).holds is True
    assert claims.faster({"a": early, "b": curves(100, 100)}).holds is None
    assert claims.faster({"a": early, "b": curves(100, 50)}).holds is False


def curves(ours, theirs, baseline="adamw", cycles=(CYCLE,)):
    """All reach the baseline's last error of 0.1 at their own steps; it sooner with two seeds."""
    data = study({name: [0.1] * 5 for name in (baseline, *cycles)}, metric="val_error")
    for run in data["runs"]:
        reached = theirs - 10 * (run["seed"] % 2) if run["optimizer"] == baseline else ours
        steps = list(range(0, 101, 10))
        run["evals"] = {"step": steps, "val_error": [0.1 if s >= reached else 0.9 for s in steps]}
    return data


SGD = authors.SGD
BARE, OTHER = authors.cycled(0.1, 300), authors.cycled(0.25, 300)


def test_a_quarter_is_of_what_the_baseline_itself_needed():
    early, late = (curves(ours, 100, SGD, (BARE,)) for ours in (20, 60))
    judge = claims.quarter_of_the_cost
    assert judge({"a": early, "b": late}).holds is True
    assert judge({"b": late}).holds is None
    # Both are there after a fifth of the run: no merit of the cycle.
    finding = judge({"a": curves(20, 20, SGD, (BARE,))})
    assert finding.holds is None
    assert (
        "after 20% of the run (the baseline itself after 20%; 0 of 5 seeds never)" in finding.ours
    )
    never = judge({"a": curves(200, 100, SGD, (BARE,))})
    assert never.holds is None
    assert "not reached (the baseline itself after 100%; 5 of 5 seeds never)" in never.ours
    assert claims.faster({"a": curves(200, 100)}).holds is False


def test_a_cycle_of_the_authors_rule_may_show_a_claim_and_not_refute_it():
    """The abstract names no range and no period, so other cycles may do what ours did not."""
    judge = claims.authors_test_error
    for ours, holds in ((shifted(-0.1), True), (shifted(0.1), None), (shifted(0, 0.1), None)):
        data = study({SGD: BASE, BARE: shifted(0.2), OTHER: ours}, metric="val_error")
        found = judge({"mnist-5k": data})
        assert found.holds is holds
        assert "p=cyclic(0.25,-0.25,300), the best of 2 cycles" in found.ours
        assert found.why == (
            "" if holds else "the abstract names no range and no period of the cycle"
        )
    lost = [*shifted(-0.1)[:4], None]
    assert judge({"a": study({SGD: BASE, BARE: lost}, metric="val_error")}).ours == (
        "a: every cycle diverged"
    )


def test_the_best_of_many_cycles_must_be_better_than_the_best_by_chance():
    ours = shifted(-0.04, 0.02)
    few = {SGD: BASE, BARE: ours}
    many = few | {authors.cycled(0.05, period): shifted(0.1) for period in range(100, 400, 100)}
    one, four = (
        claims.authors_test_error({"a": study(finals, metric="val_error")})
        for finals in (few, many)
    )
    less = Study(study(few)).difference(BARE, SGD, final("val_loss"))
    assert 0.05 / 4 < less.p_raw < 0.05
    assert (one.holds, four.holds) == (True, None)


def test_controls_of_the_authors_rule_are_no_cycles_of_it():
    weights, length = authors.cycled(0.1, 300, "sgd"), authors.length_only(0.25, 300)
    finals = {SGD: BASE, BARE: shifted(0.1), weights: shifted(-0.1), length: shifted(0.1)}
    data = {"mnist-5k": study(finals, metric="val_error")}
    assert claims.authors_test_error(data).holds is None
    assert "the best of 1 cycles" in claims.authors_test_error(data).ours
    found = {claim.text[:3]: claim.judge(data) for claim in PAPER.beyond if claim.part == "authors"}
    assert {name: each.holds for name, each in found.items()} == {"The": True, "SGD": False}
    assert found["The"].ours.startswith("mnist-5k, amplitude 0.1: \N{MINUS SIGN}9.80 points [")
    assert found["SGD"].ours.startswith("mnist-5k, amplitude 0.25: +10.20 points [")


def test_one_run_that_never_is_as_good_says_little():
    """With equal methods, half of the runs never reach the other's last value."""
    data = curves(100, 100)
    late = Study(data).runs(CYCLE)[2]
    late["evals"]["val_error"] = [0.9] * 11
    finding = claims.faster({"a": data})
    assert "1 of 5 seeds never" in finding.ours
    assert finding.holds is None


@pytest.mark.parametrize(
    ("judge", "baseline", "cycle", "fewer"),
    [(claims.faster, "adamw", CYCLE, False), (claims.quarter_of_the_cost, SGD, BARE, None)],
)
def test_a_diverged_seed_supports_no_claim_on_steps(judge, baseline, cycle, fewer):
    """It is not the same as a seed that never reaches the value, which only counts as late."""
    data = curves(20, 100, baseline, (cycle,))
    for run in Study(data).runs(cycle):
        run["evals"]["val_error"][2:] = [0.1 if run["seed"] else 0.9] * 9
    assert judge({"a": data}).holds is True
    Study(data).runs(cycle)[0]["diverged"] = True
    assert judge({"a": data}).holds is fewer
    Study(data).runs(baseline)[1]["diverged"] = True  # as many of the baseline
    assert judge({"a": data}).holds is None


def test_a_diverged_seed_supports_no_claim_on_time_alignment_or_loss():
    data = study({"adamw": BASE, CYCLE: BASE})
    for run in Study(data).runs(CYCLE):
        run["seconds_per_step"] += 0.001 * run["seed"]
    assert claims.negligible_cost(data).holds is True
    Study(data).runs(CYCLE)[0]["diverged"] = True
    assert claims.negligible_cost(data).holds is False
    data = aligning(20, 60)
    judges = (claims.early_alignment, claims.accurate_at_high_loss)
    assert [judge(data).holds for judge in judges] == [True] * 2
    Study(data["mnist-5k"]).runs(CYCLE)[0]["diverged"] = True
    assert [judge(data).holds for judge in judges] == [False] * 2


def test_more_diverged_seeds_than_the_baseline_decide_and_as_many_do_not():
    for ours, theirs, holds in (
        (1, 0, False),
        (4, 1, False),
        (1, 1, None),
        (1, 4, None),
    ):
        finals = {
            "adamw": [None] * theirs + list(BASE[theirs:]),
            CYCLE: shifted(-0.1)[: 5 - ours] + [None] * ours,
        }
        assert claims.lower_loss(study(finals)).holds == holds


def response(slopes, n=3):
    """A stored study with a slope for every optimizer, in two windows."""
    data = study({name: [1.0] * n for name in slopes})
    for run in data["runs"]:
        slope = slopes[run["optimizer"]]
        run["lens"] = [
            {"quantity": "temporal", "rate_slope": slope and slope + 0.01 * (run["seed"] + window)}
            for window in range(2)
        ]
    return {"shakespeare-char": data, "mnist-5k": copy.deepcopy(data)}


@pytest.mark.parametrize(
    ("adam", "sgd", "negative", "outcomes"),
    [
        (-0.5, 0.0, 0.5, (True, True, True)),
        (0.5, 0.3, -0.5, (False,) * 3),
        (None, None, None, (None,) * 3),
    ],
)
def test_frequencies(adam, sgd, negative, outcomes):
    data = response({"adam": adam, "sgd:lr=0.05": sgd, "nsf:p=-0.5": negative})
    judges = (claims.adaptive_favours_low, claims.sgd_is_neutral, claims.negative_favours_high)
    assert tuple(judge(data).holds for judge in judges) == outcomes


def aligning(ours, theirs, ours_loss=1.0, theirs_loss=0.5):
    """A stored study whose accuracy and agreement jump at a given step, with the loss there."""
    data = study({"adamw": [0.1] * 5, CYCLE: [0.1] * 5}, metric="val_error")
    for run in data["runs"]:
        mine = run["optimizer"] != "adamw"
        reached, loss = (ours, ours_loss) if mine else (theirs, theirs_loss)
        reached -= 10 * (run["seed"] % 2) * (not mine)
        run["lens"] = [
            {
                "quantity": "decisions",
                "step": step,
                "accuracy": 0.9 if step >= reached else 0.1,
                "agreement": 0.95 if step >= reached else 0.1,
                "loss": loss + 0.01 * run["seed"] * mine,
            }
            for step in range(0, 101, 10)
        ]
    return {"mnist-5k": data}


def test_alignment():
    assert claims.early_alignment(aligning(20, 60)).holds is True
    assert claims.early_alignment(aligning(60, 20)).holds is False
    assert "after 20% of the run, AdamW after 60%" in claims.early_alignment(aligning(20, 60)).ours
    assert claims.accurate_at_high_loss(aligning(20, 60)).holds is True
    assert claims.accurate_at_high_loss(aligning(20, 60, 0.2)).holds is False
    # At the first evaluation, or at the last, which is the end, nothing was seen of when.
    assert claims.early_alignment(aligning(0, 60)).holds is None
    assert claims.early_alignment(aligning(100, 100)).holds is None
    # It never is as accurate: nothing to compare.
    assert claims.accurate_at_high_loss(aligning(200, 60)).holds is None


@pytest.mark.parametrize(
    ("percent", "holds"),
    [((1, 2, 3), True), ((20, 22, 21), False), ((-9, 25, 4), None)],
)
def test_cost_of_a_step(percent, holds):
    data = study({"adamw": BASE[:3], CYCLE: BASE[:3]})
    for run, more in zip(Study(data).runs(CYCLE), percent, strict=True):
        run["seconds_per_step"] = 1 + more / 100
    assert claims.negligible_cost(data).holds == holds


def test_tuned_optimizers_are_found_by_what_they_were_tuned_to():
    names = {
        "adamw": "adamw:lr=0.01",
        "some.Lion": "some.Lion:lr=0.002",
        "nsf:p=0.7": "nsf:p=0.7,lr=0.02",
    }
    tuning = {name: {"optimizer": text} for name, text in names.items()}
    ours = (BASE, shifted(-0.2, 0.02), shifted(-0.1))
    finals = dict(zip(names.values(), ours, strict=True))
    finding = claims.when_tuned(study(finals, tuning=tuning))
    assert finding.holds is True
    assert finding.ours.startswith("adamw: \N{MINUS SIGN}0.098 [")
    finding = claims.beyond_others(study(finals, tuning=tuning))
    assert finding.holds is False  # Lion is better
    assert finding.ours.startswith("Lion: +0.098 [")
    finals["some.Lion:lr=0.002"] = shifted(0.3, 0.02)
    assert claims.beyond_others(study(finals, tuning=tuning)).holds is True


def test_an_optimizer_is_told_from_others_that_begin_alike():
    data = study({"adamw": [1.0], "nsf:p=0.7": [2.0], "nsf:p=0.75": [3.0], "sgd:lr=1": [4.0]})
    assert Study(data).runs("nsf:p=0.7")[0]["final"]["val_loss"] == 2
    assert Study(data).runs("sgd")[0]["final"]["val_loss"] == 4
    with pytest.raises(LookupError, match="one optimizer must start with 'nsf', got"):
        Study(data).runs("nsf")
    with pytest.raises(LookupError, match="'lion', got"):
        Study(data).runs("lion")


def test_values():
    made = Study(study({"adamw": BASE, "sgd": shifted(1, 0)}))
    assert made.difference("sgd", "adamw", final("val_loss")).mean == pytest.approx(1)
    assert Sample((1.0, 1.1, 0.9)).above(0.5)
    assert not Sample((1.0, 1.1, 0.9)).above(1)
    assert not Sample((1.0,)).above(0)
    assert written(Sample((None,))) == "no figure for every seed, n = 1"
    assert written(Sample((2.0,)), "+.1f") == "+2.0, n = 1"


def test_five_seeds_on_one_side_may_still_be_chance():
    seen = Sample((-0.0029, -0.0061, -0.0227, -0.0081, -0.0065))  # p = 0.06
    assert seen.interval[0] < 0 < seen.interval[1]
    assert not seen.below(0)
    assert lower(seen) is None
    assert lower(Sample((-0.03, 0.01, -0.02, 0.02, 0.01))) is None


def test_the_parts_run_in_this_order():
    names = [part.name for part in PAPER.parts]
    assert names == [
        "lead",
        "steps",
        "images",
        "ablation",
        "layers",
        "mechanism",
        "tuned",
        "authors",
        "response",
    ]


def test_a_table_says_what_its_study_found():
    data = study({"adamw": BASE, "nsf:p=0.7": shifted(-0.1), "nsf:p=3": [*BASE[:4], None]})
    (table,) = PAPER.tables({"lead": data})
    assert [row[0] for row in table.rows] == ["adamw", "nsf:p=0.7", "nsf:p=3"]
    assert [row[1] for row in table.rows] == ["1", "0.902", "1 of 5 diverged"]
    assert table.rows[0][2] == "baseline"
    assert (
        table.rows[1][2]
        == "\N{MINUS SIGN}0.098 [\N{MINUS SIGN}0.1116, \N{MINUS SIGN}0.0844], n = 5"
    )
    images = {"mnist-5k": study({"adamw": BASE}, metric="val_error"), "cifar10": {"skipped": "no"}}
    (table,) = PAPER.tables({"images": images})
    assert table.columns[-1] == "test_error"
    assert PAPER.tables({}) == []


def test_a_figure_shows_every_seed_and_leaves_out_those_that_diverged():
    data = study({"adamw": [1.0, 1.1], "nsf:p=0.7": [0.8, 1.0], "nsf:p=-1": [None, 2.0]})
    (figure,) = PAPER.figures({"lead": data})
    assert "nsf:p=0.7 ends best" in figure.title
    dots = {t.name: list(t.x) for t in figure.plot.data if t.meta == "values"}
    assert dots["nsf:p=0.7"] == pytest.approx([-0.2, -0.1])
    assert dots["nsf:p=-1"] == pytest.approx([0.9])
    assert PAPER.figures({}) == []


# --- optimizers ---------------------------------------------------------------------------------


def gpt():
    torch.manual_seed(0)
    return GPT(GPTConfig(vocabulary=11, context=8, layers=2, heads=2, width=16, dropout=0.0))


def trained(model, optimizer, steps=3):
    for step in range(steps):
        torch.manual_seed(step)
        tokens = torch.randint(11, (4, 8))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        optimizer.step()
    return {name: param.detach().clone() for name, param in model.named_parameters()}


def test_every_parameter_of_a_gpt_has_its_kind():
    kinds = {}
    for name, _ in gpt().named_parameters():
        kinds.setdefault(layer_kind(name), set()).add(name.removeprefix("blocks.").lstrip("01."))
    assert kinds == {
        "embedding": {"token.weight", "position.weight"},
        "attention": {"attention.qkv.weight", "attention.project.weight"},
        "feedforward": {"expand.weight", "project.weight"},
        "other": {"norm1.weight", "norm2.weight", "norm.weight"},
    }


def test_exponents_by_layer():
    model = gpt()
    named = dict(model.named_parameters())
    groups = nsf_by_layer(named.items(), lr=0.01, attention=0.7).param_groups
    exponent = {id(p): group["p"] for group in groups for p in group["params"]}
    assert {name: exponent[id(p)] for name, p in named.items()} == {
        name: 0.7 if layer_kind(name) == "attention" else 0.5 for name in named
    }
    # With equal exponents it is NSF.
    same = trained(gpt_ := gpt(), nsf_by_layer(gpt_.named_parameters(), 0.01, 0.7, 0.7, 0.7, 0.7))
    other = gpt()
    plain = bw.NSF(other.parameters(), 0.01, (0.9, 0.99), weight_decay=0.1, p=0.7)
    for name, param in trained(other, plain).items():
        torch.testing.assert_close(same[name], param)


@pytest.mark.parametrize("p", [0.5, 0.7, -0.25])
def test_parts_of_d_with_one_exponent_are_nsf(p):
    model, twin = gpt(), gpt()
    ours = trained(model, FactoredNSF(model.parameters(), 0.01, p, p, p))
    nsf = bw.NSF(twin.parameters(), 0.01, (0.9, 0.99), weight_decay=0.1, p=p)
    for name, param in trained(twin, nsf).items():
        torch.testing.assert_close(ours[name], param, rtol=1e-4, atol=1e-5)


def test_the_parts_of_a_logarithm():
    log = torch.tensor([[1.0, 2.0], [5.0, 8.0]])
    rows, columns, rest = split(log)
    assert rows.tolist() == [[1.5], [6.5]]
    assert columns.tolist() == [[-1.0, 1.0]]
    assert rest.tolist() == [[0.5, -0.5], [-0.5, 0.5]]
    assert torch.equal(split(log[0])[2], log[0])


def test_muon_and_adamw_each_train_their_own():
    model, twin = gpt(), gpt()
    ours = trained(model, MuonAdamW(model.named_parameters(), 0.01))
    hidden, others = (
        [
            p
            for name, p in twin.named_parameters()
            if (layer_kind(name) in ("attention", "feedforward")) == want
        ]
        for want in (True, False)
    )

    class Both:
        muon = torch.optim.Muon(hidden, 0.01, adjust_lr_fn="match_rms_adamw")
        adamw = torch.optim.AdamW(others, 0.01, (0.9, 0.99), weight_decay=0.1)

        def zero_grad(self):
            self.muon.zero_grad()
            self.adamw.zero_grad()

        def step(self):
            self.muon.step()
            self.adamw.step()

    theirs = trained(twin, Both())
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_muon_and_adamw_resume():
    whole = gpt()
    expected = trained(whole, MuonAdamW(whole.named_parameters(), 0.01), steps=3)
    model = gpt()
    optimizer = MuonAdamW(model.named_parameters(), 0.01)
    trained(model, optimizer, steps=2)
    saved = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], saved)
    saved.seek(0)
    weights, state = torch.load(saved, weights_only=True)
    model = gpt()
    model.load_state_dict(weights)
    optimizer = MuonAdamW(model.named_parameters(), 0.5)
    optimizer.load_state_dict(state)
    torch.manual_seed(2)
    tokens = torch.randint(11, (4, 8))
    nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
    optimizer.step()
    assert all(torch.equal(p, expected[name]) for name, p in model.named_parameters())


# --- the authors' rule and its controls ---------------------------------------------------------


def test_the_control_of_length_has_the_rule_s_length_and_momentum_s_direction():
    cycle = {"lr": 1.0, "weight_decay": 0.0}
    params = [torch.zeros(6, 5, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    optimizers = (
        authors.LengthOnly([params[0]], amplitude=0.25, period=8, **cycle),
        bw.NSF.preset("authors", [params[1]], p=bw.Cyclic(0.25, -0.25, 8), **cycle),
        bw.NSF([params[2]], p=0.0, scale="sgd", **cycle),
    )
    for step in range(1, 6):
        gradient = torch.randn(6, 5, dtype=torch.float64) * 1e-3
        moved = []
        for optimizer, param in zip(optimizers, params, strict=True):
            before = param.detach().clone()
            param.grad = gradient.clone()
            optimizer.step()
            moved.append(param.detach() - before)
        length, bare, momentum = moved
        torch.testing.assert_close(length.norm(), bare.norm(), rtol=1e-10, atol=0)
        turned = nn.functional.cosine_similarity(length.flatten(), momentum.flatten(), dim=0)
        assert turned == pytest.approx(1, abs=1e-10)
        if step != 2:  # where p is 0 in a cycle of 8
            assert abs(length.norm() / momentum.norm() - 1) > 0.1


def test_the_control_of_length_decays_as_the_rule_does():
    params = [torch.ones(6, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    control = authors.LengthOnly([params[0]], 1.0, amplitude=0.0, period=8)
    rule = bw.NSF.preset("authors", [params[1]], p=0.0)
    for _ in range(4):
        gradient = torch.randn(6, 5, dtype=torch.float64)
        for optimizer, param in ((control, params[0]), (rule, params[1])):
            param.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(params[0], params[1], rtol=1e-12, atol=0)


# --- parts --------------------------------------------------------------------------------------


@pytest.fixture
def context(tmp_path, monkeypatch):
    """A context with such small sizes that a part takes seconds."""
    tiny = replace(
        scales.SCALES["small"],
        steps=4,
        lengths=((2, 1), (4, 2)),
        period=2,
        short_steps=40,
        trials=2,
        image_steps=(10, 10),
        response_steps=36,
    )
    monkeypatch.setitem(scales.SCALES, "small", tiny)
    size = replace(
        shakespeare_char._SIZES["small"],
        network=GPTConfig(context=8, layers=1, heads=1, width=8, dropout=0.0),
        batch_size=2,
        eval_windows=2,
        recipe=Recipe(steps=4, lr=8e-3, betas=(0.9, 0.99), weight_decay=0.1, evals=2),
    )
    monkeypatch.setitem(shakespeare_char._SIZES, "small", size)
    recipe = replace(mnist_5k.Mnist5k.recipe, evals=2)
    monkeypatch.setattr(mnist_5k.Mnist5k, "recipe", recipe)
    monkeypatch.setattr(mnist_5k.Mnist5k.__init__, "__defaults__", (4,))
    linear = lambda self: nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 10))  # noqa: E731
    monkeypatch.setattr(mnist_5k.Mnist5k, "model", linear)
    monkeypatch.setattr(cifar10, "Recipe", lambda **given: Recipe(**given, evals=1))
    return Context(tmp_path / "part", "small", 1, 1, "cpu", Console(quiet=True))


def judged(name, data):
    """The findings of all claims of a part, from data as a file holds it."""
    data = json.loads(to_json(data))
    return [claim.judge(data) for claim in PAPER.claims if claim.part == name]


@pytest.mark.parametrize(
    "name", ["lead", "steps", "ablation", "layers", "mechanism", "tuned", "response"]
)
def test_a_part_runs_resumes_and_is_judged(name, context):
    part = next(part for part in PAPER.parts if part.name == name)
    data = part.run(context)
    for finding in judged(name, data):
        assert finding.ours
    for table in PAPER.tables({name: json.loads(to_json(data))}):
        assert table.rows
        assert {len(row) for row in table.rows} == {len(table.columns)}
    again = part.run(context)
    assert again == data  # the times too, so nothing was trained again


def test_images_with_and_without_cifar(context, monkeypatch):
    def offline(*_, **__):
        raise OSError("cannot download it")

    monkeypatch.setattr(cifar10, "fetch", offline)
    data = parts.images(context)
    assert data["cifar10"]["skipped"].startswith("cannot download it; with no network, put one of")
    rows = data["mnist-5k"]["runs"][0]["lens"]
    assert {"step", "accuracy", "loss", "agreement"} <= rows[0].keys()
    assert "test_error" in data["mnist-5k"]["runs"][0]["final"]
    assert all("mnist-5k" in f.ours and "cifar10" not in f.ours for f in judged("images", data))

    defaults = ("small", None, None, 100, 28, 10, 8)
    monkeypatch.setattr(cifar10.Cifar10.__init__, "__defaults__", defaults)
    write_jpegs(context.folder / "cifar10.npz", train=100, test=10)
    data = parts.images(context)
    assert data["cifar10"]["task"] == "cifar10"
    assert all("cifar10" in finding.ours for finding in judged("images", data))


def test_the_authors_part_on_both_tasks(context, monkeypatch):
    tiny = {"steps": 8, "evals": 2}
    for task in (authors.Mnist5k, authors.Cifar10):
        monkeypatch.setattr(task, "recipe", replace(task.recipe, **tiny))
    defaults = ("small", None, None, 100, 28, 10, 8)
    monkeypatch.setattr(cifar10.Cifar10.__init__, "__defaults__", defaults)
    linear = lambda self: nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))  # noqa: E731
    monkeypatch.setattr(cifar10.Cifar10, "model", linear)
    context.folder.mkdir()
    write_jpegs(context.folder / "cifar10.npz", train=100, test=10)
    data = authors.authors(context)
    assert {name: len(Study(found).optimizers) for name, found in data.items()} == {
        "mnist-5k": 13,
        "cifar10": 8,
    }
    for found in data.values():
        assert found["steps"] == 8
        assert "test_error" in found["runs"][0]["final"]


def test_the_authors_part_is_kept_where_cifar_cannot_be_had(context, monkeypatch):
    def offline(*_, **__):
        raise OSError("cannot download it")

    monkeypatch.setattr(cifar10, "fetch", offline)
    recipe = replace(authors.Mnist5k.recipe, steps=8, evals=2)
    monkeypatch.setattr(authors.Mnist5k, "recipe", recipe)
    data = authors.authors(context)
    assert data["cifar10"]["skipped"].startswith("cannot download it; with no network, put one of")
    assert len(Study(data["mnist-5k"]).optimizers) == 13
    found = judged("authors", data)
    assert found
    assert all("mnist-5k" in f.ours and "cifar10" not in f.ours for f in found)
