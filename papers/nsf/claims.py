"""The claims of the NSF paper's abstract, and ours, judged by the parts' stored data alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from bandwise.study.paired import Sample
from papers.nsf.measures import (
    aligned_at,
    decisions,
    in_percent,
    loss_at,
    rate_slope,
    seconds_per_step,
)
from papers.paper import Claim, Data, Finding, Verdict
from papers.stored import Study, final
from papers.verdicts import as_large, lower, together, told, written

# The cycle with exponents of both signs, as in the paper. Its period differs by part.
_CYCLE = "nsf:p=cyclic(0.5,-0.25,"
# The lens shows a slope of up to this size for momentum without any adaptivity
# (bandwise.lens.quantities.response).
_NEUTRAL = 0.1
_NEGLIGIBLE = 5.0  # percent of a training step
_QUARTER = 0.25


def _on_tasks(
    found: Mapping[str, tuple[str, Verdict]], wanted: Callable[..., bool] = all
) -> Finding:
    """A finding on several tasks: ``wanted`` is ``all`` or ``any`` of them."""
    ours = "; ".join(f"{task}: {text}" for task, (text, _) in found.items())
    return Finding(ours or "no task", together([verdict for _, verdict in found.values()], wanted))


def _measured(data: Data) -> dict[str, Study]:
    return {task: Study(study) for task, study in data.items() if "skipped" not in study}


def _less(data: Data, optimizer: str, baseline: str = "adamw") -> tuple[str, Verdict]:
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
        verdict = told(neutral, any(slopes.diverged) or any(size > _NEUTRAL for size in sizes))
        found[task] = (written(slopes, "+.2f"), verdict)
    return _on_tasks(found)


def negative_favours_high(data: Data) -> Finding:
    slopes = _slopes(data, "nsf:p=-0.5")
    return _on_tasks({task: (written(s, "+.2f"), lower(s.negated())) for task, s in slopes.items()})


# --- cycles -------------------------------------------------------------------------------------


def lower_test_error(data: Data) -> Finding:
    found = {}
    for task, study in _measured(data).items():
        tested = study.data["metric"].replace("val_", "test_")
        points = study.difference(_CYCLE, "adamw", in_percent(tested))
        found[task] = (written(points, "+.2f", " points"), lower(points))
    return _on_tasks(found)


def lower_loss(data: Data) -> Finding:
    return Finding(*_less(data, _CYCLE))


def _share(steps: Sample, study: Study) -> str:
    """The median of some steps as a share of the whole run."""
    if steps.median is None:
        return "not reached"
    return f"after {steps.median / study.data['steps']:.0%}"


def _cost(study: Study) -> tuple[str, Sample]:
    """The steps to AdamW's last value over the steps at which AdamW itself first had it, as a
    logarithm to base 2."""
    ours, own = (study.steps_to_baseline(name, "adamw") for name in (_CYCLE, "adamw"))
    share = _share(ours, study) + (" of the run" if ours.median is not None else "")
    text = (
        f"{share} (AdamW itself {_share(own, study)}; {sum(ours.missing)} of {ours.n} seeds never)"
    )
    # Half of the runs of an equal method never reach the value. So a run that does not counts as
    # late by the smallest amount: as if the next evaluation after its end reached it.
    *_, before, end = study.runs("adamw")[0]["evals"]["step"]
    return text, ours.bounded(2 * end - before).ratio_to(own).each(math.log2)


def quarter_of_the_cost(data: Data) -> Finding:
    """AdamW's cost counts up to where it first has its last value.

    What it trains beyond that is no merit of another optimizer.
    """
    found = {}
    for task, study in _measured(data).items():
        text, ratio = _cost(study)
        found[task] = (text, as_large(ratio, math.log2(_QUARTER)))
    return _on_tasks(found, any)


def faster(data: Data) -> Finding:
    found = {}
    for task, study in _measured(data).items():
        text, ratio = _cost(study)
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


def _tuned_less(data: Data, name: str) -> tuple[str, Verdict]:
    """The tuned p = 0.7 less another optimizer with its own tuned settings."""
    return _less(data, *(data["tuning"][key]["optimizer"] for key in ("nsf:p=0.7", name)))


CLAIMS = (
    Claim("abstract", "Adaptive methods emphasise low frequencies: Adam gives coordinates whose "
          "gradient changes sign more often a shorter step (slope of the logarithms).",
          "below 0", "response", adaptive_favours_low),
    Claim("abstract", "SGD is near-neutral: the same slope of momentum SGD, within 0.1 of 0 with "
          "every seed.", "about 0", "response", sgd_is_neutral),
    Claim("abstract", "Negative exponents amplify high frequencies: the same slope at p = -0.5.",
          "above 0", "response", negative_favours_high),
    Claim("abstract", "Cycling p reduces the test error with the same learning rate and "
          "hyperparameters: a cycle from 0.5 to -0.25 and back, less AdamW, on images.",
          "lower, consistently", "images", lower_test_error),
    Claim("abstract", "The same on text: validation loss of the cycle less AdamW's on "
          "shakespeare-char.", "lower, consistently", "lead", lower_loss),
    Claim("summary", "Training converges faster: the step at which the cycle is as good as AdamW's "
          "last value.", "sooner", "images", faster),
    Claim("abstract", "On some tasks the cycle reaches the baseline's accuracy at a quarter of its "
          "cost.", "25%", "images", quarter_of_the_cost),
    Claim("abstract", "Decision boundaries align early: the first evaluation at which nine "
          "decisions in ten are those of the trained model.", "sooner", "images", early_alignment),
    Claim("abstract", "Accuracy improves while the loss remains high: the cycle's loss less "
          "AdamW's, at the same accuracy.", "higher", "images", accurate_at_high_loss),
    Claim("abstract", "Cycling costs next to nothing: time of a training step over AdamW's, below "
          "5% (rough: the runs of a study share the machine).", "negligible", "lead",
          negligible_cost),
    Claim("ours", "Not the paper's: p = 0.7 ends with a lower loss than AdamW, everything else the "
          "same (shakespeare-char).", "none", "lead", seven_tenths),
    Claim("ours", "Not the paper's: p = 0.7 ends lower in shorter and in longer runs too.", "none",
          "steps", at_every_length),
    Claim("ours", "Not the paper's: p = 0.7 ends lower when the learning rate and decay of both "
          "were tuned with the same small budget.", "none", "tuned", when_tuned),
    Claim("ours", "Not the paper's: tuned in this way, p = 0.7 ends below NAdam, Lion and Muon "
          "too.", "none", "tuned", beyond_others),
)  # fmt: skip
