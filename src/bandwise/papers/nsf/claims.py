"""The claims of the NSF paper's abstract, and ours, judged by the parts' stored data alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bandwise.lens.boundary import aligned
from bandwise.papers.nsf.values import differences, rate_slope, runs_of, values
from bandwise.papers.paper import Claim, Data, Finding, Verdict
from bandwise.papers.stored import Figure, Values, final

# The cycle that has exponents of both signs, as the paper's; its period differs by part.
_CYCLE = "nsf:p=cyclic(0.5,-0.25,"
# What the lens itself may show of a momentum without any adaptivity (bandwise.lens.temporal).
_NEUTRAL = 0.1
_NEGLIGIBLE = 5.0  # percent of a training step
_QUARTER = 0.25


def verdict(found: Values, below: float) -> Verdict:
    """Whether figures that are claimed to lie below a value do; an infinite one is a run that
    diverged. That no difference is seen does not say that there is none."""
    if found.below(below):
        return "holds"
    if any(map(math.isinf, found.values)) or found.above(below):
        return "does not hold"
    return "cannot tell yet"


def _together(found: Mapping[str, tuple[str, Verdict]], wanted: Callable[..., bool]) -> Finding:
    """A finding on several tasks: ``wanted`` is ``all`` or ``any`` of them."""
    ours = "; ".join(f"{task}: {text}" for task, (text, _) in found.items())
    verdicts = [v for _, v in found.values()]
    if verdicts and wanted(v == "holds" for v in verdicts):
        return Finding(ours, "holds")
    settled = any if wanted is all else all
    if verdicts and settled(v == "does not hold" for v in verdicts):
        return Finding(ours, "does not hold")
    return Finding(ours or "no task", "cannot tell yet")


def _measured(data: Data) -> dict[str, Any]:
    return {task: study for task, study in data.items() if "skipped" not in study}


# --- frequencies --------------------------------------------------------------------------------


def _slopes(data: Data, optimizer: str) -> dict[str, Values]:
    return {task: values(study, optimizer, rate_slope) for task, study in data.items()}


def adaptive_favours_low(data: Data) -> Finding:
    """From the part ``response``."""
    slopes = _slopes(data, "adam")
    return _together({task: (s.written("+.2f"), verdict(s, 0)) for task, s in slopes.items()}, all)


def sgd_is_neutral(data: Data) -> Finding:
    """From the part ``response``."""
    found: dict[str, tuple[str, Verdict]] = {}
    for task, slopes in _slopes(data, "sgd").items():
        largest = max(map(abs, slopes.values)) if slopes.finite else math.inf
        found[task] = (slopes.written("+.2f"), "holds" if largest <= _NEUTRAL else "does not hold")
    return _together(found, all)


def negative_favours_high(data: Data) -> Finding:
    """From the part ``response``."""
    found = {}
    for task, slopes in _slopes(data, "nsf:p=-0.5").items():
        negated = slopes.negated()
        found[task] = (slopes.written("+.2f"), verdict(negated, 0))
    return _together(found, all)


# --- cycles -------------------------------------------------------------------------------------


def lower_test_error(data: Data) -> Finding:
    """From the part ``images``."""
    found = {}
    for task, study in _measured(data).items():
        tested = study["metric"].replace("val_", "test_")
        percent = Values(
            tuple(100 * d for d in differences(study, _CYCLE, "adamw", final(tested)).values)
        )
        found[task] = (percent.written("+.2f", " points"), verdict(percent, 0))
    return _together(found, all)


def lower_loss(data: Data) -> Finding:
    """From the part ``lead``."""
    found = differences(data, _CYCLE, "adamw", final(data["metric"]))
    return Finding(found.written(), verdict(found, 0))


def _first_reached(study: Data, optimizer: str) -> tuple[float, ...]:
    """By seed, the first evaluated step with a metric as good as AdamW's last; inf if none."""
    metric = study["metric"]
    sign = 1 if study["direction"] == "min" else -1
    steps = []
    for run, baseline in zip(runs_of(study, optimizer), runs_of(study, "adamw"), strict=True):
        target = sign * baseline["final"][metric]
        curve = zip(run["evals"]["step"], run["evals"][metric], strict=True)
        steps.append(next((float(s) for s, value in curve if sign * value <= target), math.inf))
    return tuple(steps)


def _log_ratio(ours: tuple[float, ...], theirs: tuple[float, ...]) -> Values:
    return Values(
        tuple(
            math.log2(a / b) if 0 < a < math.inf and 0 < b < math.inf else math.inf
            for a, b in zip(ours, theirs, strict=True)
        )
    )


def _cost(study: Data) -> tuple[str, Values]:
    ours, theirs = _first_reached(study, _CYCLE), _first_reached(study, "adamw")
    share, own = (float(np.median(steps)) / study["steps"] for steps in (ours, theirs))
    missed = sum(map(math.isinf, ours))
    text = f"after {share:.0%} of the run" if math.isfinite(share) else "not reached"
    text += f" (AdamW itself after {own:.0%}; {missed} of {len(ours)} seeds never)"
    # Of equal methods every second run never is as good: the least that it is late by counts.
    *_, before, end = runs_of(study, "adamw")[0]["evals"]["step"]
    return text, _log_ratio(tuple(min(step, 2 * end - before) for step in ours), theirs)


def quarter_of_the_cost(data: Data) -> Finding:
    """From the part ``images``. Of AdamW's cost to reach the same: it may be there before its end,
    and what it trains beyond that is no merit of another."""
    found = {}
    for task, study in _measured(data).items():
        text, ratio = _cost(study)
        found[task] = (text, _kept(float(np.median(ratio.values)) <= math.log2(_QUARTER)))
    return _together(found, any)


def faster(data: Data) -> Finding:
    """From the part ``images``."""
    found = {}
    for task, study in _measured(data).items():
        text, ratio = _cost(study)
        found[task] = (text, verdict(ratio, 0))
    return _together(found, all)


def _kept(holds: bool) -> Verdict:
    return "holds" if holds else "does not hold"


def _decisions(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in run["lens"] if row["quantity"] == "decisions"]


def _aligned(run: dict[str, Any]) -> float:
    rows = _decisions(run)
    step = aligned(rows, rows[-1]["loss"]).step
    return math.inf if step is None else float(step)


def early_alignment(data: Data) -> Finding:
    """From the part ``images``: the first evaluation that decides nine in ten examples as the
    run's last does."""
    found = {}
    for task, study in _measured(data).items():
        steps = [
            tuple(_aligned(run) for run in runs_of(study, optimizer))
            for optimizer in (_CYCLE, "adamw")
        ]
        ratio = _log_ratio(*steps)
        ours, theirs = (np.median(some) / study["steps"] for some in steps)
        text = f"after {ours:.0%} of the run, AdamW after {theirs:.0%}, n = {ratio.n}"
        found[task] = (text, verdict(ratio, 0))
    return _together(found, all)


def accurate_at_high_loss(data: Data) -> Finding:
    """From the part ``images``: the loss at the first evaluation with 95% of the accuracy that
    AdamW ends with, less AdamW's there."""
    found = {}
    for task, study in _measured(data).items():
        targets = {
            run["seed"]: 0.95 * _decisions(run)[-1]["accuracy"] for run in runs_of(study, "adamw")
        }
        higher = differences(study, _CYCLE, "adamw", _loss_at(targets))
        negated = higher.negated()
        found[task] = (higher.written("+.3f"), verdict(negated, 0))
    return _together(found, all)


def _loss_at(accuracy: Mapping[int, float]) -> Figure:
    def loss(run: dict[str, Any]) -> float:
        rows = (row for row in _decisions(run) if row["accuracy"] >= accuracy[run["seed"]])
        return next((float(row["loss"]) for row in rows), math.nan)

    return loss


def negligible_cost(data: Data) -> Finding:
    """From the part ``lead``, whose runs no lens slows down."""
    ours, theirs = (
        values(data, name, lambda run: float(run["seconds_per_step"])).values
        for name in (_CYCLE, "adamw")
    )
    change = Values(tuple(100 * (a / b - 1) for a, b in zip(ours, theirs, strict=True)))
    text = change.written("+.1f", "% of a step")
    if change.below(_NEGLIGIBLE):
        return Finding(text, "holds")
    return Finding(text, "does not hold" if change.above(_NEGLIGIBLE) else "cannot tell yet")


# --- ours ---------------------------------------------------------------------------------------


def seven_tenths(data: Data) -> Finding:
    """From the part ``lead``."""
    found = differences(data, "nsf:p=0.7", "adamw", final(data["metric"]))
    return Finding(found.written(), verdict(found, 0))


def at_every_length(data: Data) -> Finding:
    """From the part ``steps``."""
    found = {}
    for length, study in data.items():
        less = differences(study, "nsf:p=0.7", "adamw", final(study["metric"]))
        found[f"{length} steps"] = (less.written(), verdict(less, 0))
    return _together(found, all)


def when_tuned(data: Data) -> Finding:
    """From the part ``tuned``."""
    return _together({"adamw": _tuned_less(data, "adamw")}, all)


def beyond_others(data: Data) -> Finding:
    """From the part ``tuned``."""
    found = {
        name.partition(":")[0].rpartition(".")[2]: _tuned_less(data, name)
        for name in data["tuning"]
        if not name.startswith(("nsf:", "adamw"))
    }
    return _together(found, all)


def _tuned_less(data: Data, name: str) -> tuple[str, Verdict]:
    """The tuned p = 0.7 less another optimizer as it was tuned."""
    ours, theirs = (data["tuning"][key]["optimizer"] for key in ("nsf:p=0.7", name))
    less = differences(data, ours, theirs, final(data["metric"]))
    return less.written(), verdict(less, 0)


CLAIMS = (
    Claim(
        "abstract",
        "Adaptive methods emphasise low frequencies: Adam gives coordinates whose gradient "
        "changes sign more often a shorter step (slope of the logarithms).",
        "below 0",
        "response",
        adaptive_favours_low,
    ),
    Claim(
        "abstract",
        "SGD is near-neutral: the same slope of momentum SGD, within 0.1 of 0 with every seed.",
        "about 0",
        "response",
        sgd_is_neutral,
    ),
    Claim(
        "abstract",
        "Negative exponents amplify high frequencies: the same slope at p = -0.5.",
        "above 0",
        "response",
        negative_favours_high,
    ),
    Claim(
        "abstract",
        "Cycling p reduces the test error with the same learning rate and hyperparameters: a cycle "
        "from 0.5 to -0.25 and back, less AdamW, on images.",
        "lower, consistently",
        "images",
        lower_test_error,
    ),
    Claim(
        "abstract",
        "The same on text: validation loss of the cycle less AdamW's on shakespeare-char.",
        "lower, consistently",
        "lead",
        lower_loss,
    ),
    Claim(
        "summary",
        "Training converges faster: when the cycle is as good as AdamW in the end.",
        "sooner",
        "images",
        faster,
    ),
    Claim(
        "abstract",
        "On some tasks the baseline's accuracy takes a quarter of its cost.",
        "25%",
        "images",
        quarter_of_the_cost,
    ),
    Claim(
        "abstract",
        "Decision boundaries align early: the first evaluation at which nine decisions in ten are "
        "those of the end.",
        "sooner",
        "images",
        early_alignment,
    ),
    Claim(
        "abstract",
        "Accuracy improves while the loss remains high: the cycle's loss less AdamW's, at the same "
        "accuracy.",
        "higher",
        "images",
        accurate_at_high_loss,
    ),
    Claim(
        "abstract",
        "Cycling costs next to nothing: time of a training step over AdamW's, below 5% (rough: "
        "the runs of a study share the machine).",
        "negligible",
        "lead",
        negligible_cost,
    ),
    Claim(
        "ours",
        "Not the paper's: p = 0.7 ends with a lower loss than AdamW, everything else the same "
        "(shakespeare-char).",
        "none",
        "lead",
        seven_tenths,
    ),
    Claim(
        "ours",
        "Not the paper's: so it does in shorter and in longer runs.",
        "none",
        "steps",
        at_every_length,
    ),
    Claim(
        "ours",
        "Not the paper's: so it does when learning rate and decay of both were tuned with the same "
        "small budget.",
        "none",
        "tuned",
        when_tuned,
    ),
    Claim(
        "ours",
        "Not the paper's: tuned so, it ends below NAdam, Lion and Muon too.",
        "none",
        "tuned",
        beyond_others,
    ),
)
