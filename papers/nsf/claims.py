"""The claims of the NSF paper's abstract, and ours, judged by the parts' stored data alone.

The paper's full text is not at hand. Its abstract names neither the cycle's range and period nor a
baseline. The part ``authors`` has the rule and the regime that are public of its authors, with
several ranges and periods. That none of them does what the abstract says would not decide a claim.
All other parts have a cycle of ours beside AdamW, at Adam's length. They decide no claim of the
paper.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from bandwise.figures.words import number
from bandwise.study.paired import Sample
from papers.nsf.measures import (
    aligned_at,
    decisions,
    in_percent,
    loss_at,
    rate_slope,
    seconds_per_step,
)
from papers.paper import Claim, Data, Finding, Outcome
from papers.stored import Study, final
from papers.verdicts import lower, together, told, written

# Our cycle, with exponents of both signs, at Adam's length. Its period differs by part.
_CYCLE = "nsf:p=cyclic(0.5,-0.25,"
# The lens shows a slope of up to this size for momentum without any adaptivity
# (bandwise.lens.quantities.response).
_NEUTRAL = 0.1
_NEGLIGIBLE = 5.0  # percent of a training step
_QUARTER = 0.25
Judge = Callable[[Data], Finding]


def undecided(judge: Judge, why: str) -> Judge:
    """What was measured, which decides nothing about the paper's claim."""
    return lambda data: Finding(judge(data).ours, None, why)


def _on_tasks(
    found: Mapping[str, tuple[str, Outcome]], wanted: Callable[..., bool] = all
) -> Finding:
    """A finding on several tasks: ``wanted`` is ``all`` or ``any`` of them."""
    ours = "; ".join(f"{task}: {text}" for task, (text, _) in found.items())
    return Finding(ours or "no task", together([holds for _, holds in found.values()], wanted))


def _measured(data: Data) -> dict[str, Study]:
    return {task: Study(study) for task, study in data.items() if "skipped" not in study}


def _less(data: Data, optimizer: str, baseline: str = "adamw") -> tuple[str, Outcome]:
    """Whether an optimizer ends below another."""
    less = Study(data).difference(optimizer, baseline, final(data["metric"]))
    return written(less), lower(less)


# --- frequencies --------------------------------------------------------------------------------


def _slopes(data: Data, optimizer: str) -> dict[str, Sample]:
    return {task: Study(study).sample(optimizer, rate_slope) for task, study in data.items()}


def adaptive_favours_low(data: Data) -> Finding:
    slopes = _slopes(data, "adam")
    return _on_tasks({task: (written(s, "+.2f"), lower(s)) for task, s in slopes.items()})


def sgd_is_neutral(data: Data) -> Finding:
    found = {}
    for task, slopes in _slopes(data, "sgd").items():
        sizes = [abs(slope) for slope in slopes.values if slope is not None]
        neutral = slopes.complete and all(size <= _NEUTRAL for size in sizes)
        holds = told(neutral, any(slopes.diverged) or any(size > _NEUTRAL for size in sizes))
        found[task] = (written(slopes, "+.2f"), holds)
    return _on_tasks(found)


def negative_favours_high(data: Data) -> Finding:
    slopes = _slopes(data, "nsf:p=-0.5")
    return _on_tasks({task: (written(s, "+.2f"), lower(s.negated())) for task, s in slopes.items()})


# --- cycles -------------------------------------------------------------------------------------


def lower_test_error(data: Data) -> Finding:
    found = {}
    for task, study in _measured(data).items():
        text, points = _test_error(study, _CYCLE, "adamw")
        found[task] = (text, lower(points))
    return _on_tasks(found)


def lower_loss(data: Data) -> Finding:
    return Finding(*_less(data, _CYCLE))


def _share(steps: Sample, study: Study) -> str:
    """The median of some steps as a share of the whole run."""
    if steps.median is None:
        return "not reached"
    return f"after {steps.median / study.data['steps']:.0%}"


def _cost(study: Study, cycle: str, baseline: str) -> tuple[str, Sample]:
    """The steps to the baseline's last value over the steps at which the baseline itself first had
    it, as a logarithm to base 2.

    What the baseline trains beyond that is no merit of another optimizer.
    """
    ours, own = (study.steps_to_baseline(name, baseline) for name in (cycle, baseline))
    share = _share(ours, study) + (" of the run" if ours.median is not None else "")
    text = f"{share} (the baseline itself {_share(own, study)}; {sum(ours.missing)} of {ours.n} "
    # Half of the runs of an equal method never reach the value. So a run that does not counts as
    # late by the smallest amount: as if the next evaluation after its end reached it.
    *_, before, end = study.runs(baseline)[0]["evals"]["step"]
    late = ours.bounded(2 * end - before)
    return f"{text}seeds never)", late.ratio_to(own).each(math.log2)


def faster(data: Data) -> Finding:
    found = {}
    for task, study in _measured(data).items():
        text, ratio = _cost(study, _CYCLE, "adamw")
        found[task] = (text, lower(ratio))
    return _on_tasks(found)


def early_alignment(data: Data) -> Finding:
    found = {}
    for task, study in _measured(data).items():
        ours, theirs = (study.sample(optimizer, aligned_at) for optimizer in (_CYCLE, "adamw"))
        ratio = ours.ratio_to(theirs).each(math.log2)
        text = f"{_share(ours, study)} of the run, AdamW {_share(theirs, study)}, n = {ratio.n}"
        found[task] = (text, lower(ratio))
    return _on_tasks(found)


def accurate_at_high_loss(data: Data) -> Finding:
    """The loss at the first evaluation with 95% of the accuracy that AdamW ends with."""
    found = {}
    for task, study in _measured(data).items():
        targets = {
            run["seed"]: 0.95 * decisions(run)[-1]["accuracy"] for run in study.runs("adamw")
        }
        higher = study.difference(_CYCLE, "adamw", loss_at(targets))
        found[task] = (written(higher, "+.3f"), lower(higher.negated()))
    return _on_tasks(found)


def negligible_cost(data: Data) -> Finding:
    ours, theirs = (Study(data).sample(name, seconds_per_step) for name in (_CYCLE, "adamw"))
    change = ours.ratio_to(theirs).each(lambda ratio: 100 * (ratio - 1))
    return Finding(written(change, "+.1f", "% of a step"), lower(change, _NEGLIGIBLE))


# --- the authors' rule --------------------------------------------------------------------------


def _some_cycle(
    data: Data, measure: Callable[[Study, str, str], tuple[str, Sample]], bound: float
) -> dict[str, tuple[str, Outcome]]:
    """The cycle of the authors' rule with the smallest figure, for each task.

    It holds if the figure is below 0 by more than chance, after a correction for the number of
    cycles that were tried, and its mean is at most the bound.
    """
    found: dict[str, tuple[str, Outcome]] = {}
    for task, study in _measured(data).items():
        baseline, *others = study.optimizers
        cycles = [text for text in others if "cyclic" in text and "scale=none" in text]
        tried = {cycle: measure(study, cycle, baseline) for cycle in cycles}
        known = {
            cycle: sample.mean for cycle, (_, sample) in tried.items() if sample.mean is not None
        }
        if not known:
            found[task] = ("every cycle diverged", None)
            continue
        best = min(known, key=lambda cycle: known[cycle])
        text, sample = tried[best]
        holds = known[best] <= bound and sample.below(0, len(cycles)) and not sample.any_diverged
        label = best.partition(",scale")[0].removeprefix("nsf:")
        found[task] = (f"{text}, {label}, the best of {len(cycles)} cycles", holds or None)
    return found


def _test_error(study: Study, optimizer: str, baseline: str) -> tuple[str, Sample]:
    """A test error less the baseline's, in percentage points."""
    tested = study.data["metric"].replace("val_", "test_")
    points = study.difference(optimizer, baseline, in_percent(tested))
    return written(points, "+.2f", " points"), points


_NO_CYCLE = "the abstract names no range and no period of the cycle"


def authors_test_error(data: Data) -> Finding:
    found = _on_tasks(_some_cycle(data, _test_error, 0))
    return Finding(found.ours, found.holds, "" if found.holds else _NO_CYCLE)


def quarter_of_the_cost(data: Data) -> Finding:
    """At most half of the cost, which is half as large a saving as claimed, on a scale of logs."""
    found = _on_tasks(_some_cycle(data, _cost, math.log2(_QUARTER) / 2), any)
    return Finding(found.ours, found.holds, "" if found.holds else _NO_CYCLE)


def _control(words: str) -> Judge:
    """Judge whether the optimizers with these words in their texts beat the baseline."""

    def judge(data: Data) -> Finding:
        found = {}
        for task, study in _measured(data).items():
            baseline, *others = study.optimizers
            for text in (text for text in others if words in text):
                figures, points = _test_error(study, text, baseline)
                amplitude = re.findall(r"(?:cyclic\(|amplitude=)([\d.]+)", text)
                found[f"{task}, amplitude {', '.join(amplitude)}"] = (figures, lower(points))
        return _on_tasks(found)

    return judge


# --- ours ---------------------------------------------------------------------------------------


def seven_tenths(data: Data) -> Finding:
    return Finding(*_less(data, "nsf:p=0.7"))


def at_every_length(data: Data) -> Finding:
    return _on_tasks(
        {f"{length} steps": _less(study, "nsf:p=0.7") for length, study in data.items()}
    )


def when_tuned(data: Data) -> Finding:
    return _on_tasks({"adamw": _tuned_less(data, "adamw")})


def beyond_others(data: Data) -> Finding:
    return _on_tasks(
        {
            name.partition(":")[0].rpartition(".")[2]: _tuned_less(data, name)
            for name in data["tuning"]
            if not name.startswith(("nsf:", "adamw"))
        }
    )


def _tuned_less(data: Data, name: str) -> tuple[str, Outcome]:
    """The tuned p = 0.7 less another optimizer with its own tuned settings, and the median.

    A few seeds on which one of them is unstable decide the mean. They do not decide the median.
    """
    ours, theirs = (data["tuning"][key]["optimizer"] for key in ("nsf:p=0.7", name))
    text, holds = _less(data, ours, theirs)
    median = Study(data).difference(ours, theirs, final(data["metric"])).median
    return text + ("" if median is None else f" (median {number(median, '+.4g')})"), holds


_FREQUENCY = "the abstract does not say of what a frequency is; this definition is ours"
_ALIGNMENT = "the abstract has no measure of it; this one, the cycle and the baseline are ours"
_COST = "the abstract names no model and no cycle; these are ours"
CLAIMS = (
    Claim("abstract", "Adaptive methods emphasise low frequencies: Adam gives coordinates whose "
          "gradient changes sign more often a shorter step (slope of the logarithms).",
          "below 0", "response", undecided(adaptive_favours_low, _FREQUENCY)),
    Claim("abstract", "SGD is near-neutral: the same slope of momentum SGD, within 0.1 of 0 with "
          "every seed.", "about 0", "response", undecided(sgd_is_neutral, _FREQUENCY)),
    Claim("abstract", "Negative exponents amplify high frequencies: the same slope at p = -0.5.",
          "above 0", "response", undecided(negative_favours_high, _FREQUENCY)),
    Claim("abstract", "Cycling p reduces the test error with the same learning rate and "
          "hyperparameters: the authors' rule with p cycled around 0, less SGD with momentum.",
          "lower, consistently", "authors", authors_test_error),
    Claim("abstract", "On some tasks cycling reaches the baseline's accuracy at a quarter of its "
          "cost: the step at which the authors' rule with p cycled around 0 has SGD's last error.",
          "25%", "authors", quarter_of_the_cost),
    Claim("abstract", "Decision boundaries align early: the first evaluation at which nine "
          "decisions in ten are those of the trained model, of our cycle and of AdamW.",
          "sooner", "images", undecided(early_alignment, _ALIGNMENT), "alignment"),
    Claim("abstract", "Accuracy improves while the loss remains high: the loss of our cycle less "
          "AdamW's, at the same accuracy.",
          "higher", "images", undecided(accurate_at_high_loss, _ALIGNMENT), "alignment"),
    Claim("abstract", "Cycling costs next to nothing: time of a training step over AdamW's (rough: "
          "the runs of a study share the machine).",
          "negligible", "lead", undecided(negligible_cost, _COST)),
)  # fmt: skip

BEYOND = (
    Claim("", "The authors' rule with p cycled, but with steps as long as SGD's, has a lower test "
          "error than SGD.", "", "authors", _control("scale=sgd")),
    Claim("", "SGD with steps as long as those of the authors' rule with p cycled has a lower test "
          "error than SGD.", "", "authors", _control("LengthOnly")),
    Claim("", "Our cycle, from 0.5 to -0.25 and back at Adam's length, has a lower test error than "
          "AdamW.", "", "images", lower_test_error),
    Claim("", "Our cycle is sooner as good as AdamW's last value on images.", "", "images", faster),
    Claim("", "Our cycle ends with a lower loss than AdamW on a text model (shakespeare-char).", "",
          "lead", lower_loss),
    Claim("", "p = 0.7 ends with a lower loss than AdamW, everything else the same "
          "(shakespeare-char).", "", "lead", seven_tenths),
    Claim("", "p = 0.7 ends lower in shorter and in longer runs too.", "", "steps",
          at_every_length),
    Claim("", "p = 0.7 ends lower when the learning rate and decay of both were tuned with the "
          "same small budget.", "", "tuned", when_tuned),
    Claim("", "Tuned in this way, p = 0.7 ends below NAdam, Lion and Muon too.", "", "tuned",
          beyond_others),
)  # fmt: skip
