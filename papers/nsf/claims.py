"""The claims of the NSF paper's abstract, and ours, judged by the parts' stored data alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bandwise.lens.quantities.decisions import aligned
from papers.nsf.measures import rate_slope
from papers.paper import Claim, Data, Finding, Verdict
from papers.stored import Figure, Study, Values, final
from papers.verdicts import as_large, lower, together, told

# The cycle that has exponents of both signs, as the paper's; its period differs by part.
_CYCLE = "nsf:p=cyclic(0.5,-0.25,"
# What the lens itself may show of a momentum without any adaptivity (bandwise.lens.quantities.response).
_NEUTRAL = 0.1
_NEGLIGIBLE = 5.0  # percent of a training step
_QUARTER = 0.25


def _together(
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
    return less.written(), lower(less)


# --- frequencies --------------------------------------------------------------------------------


def _slopes(data: Data, optimizer: str) -> dict[str, Values]:
    return {task: Study(study).values(optimizer, rate_slope) for task, study in data.items()}


def adaptive_favours_low(data: Data) -> Finding:
    """From the part ``response``."""
    slopes = _slopes(data, "adam")
    return _together({task: (s.written("+.2f"), lower(s)) for task, s in slopes.items()})


def sgd_is_neutral(data: Data) -> Finding:
    """From the part ``response``."""
    found = {}
    for task, slopes in _slopes(data, "sgd").items():
        sizes = [abs(slope) for slope in slopes.values]
        verdict = told(all(x <= _NEUTRAL for x in sizes), any(x > _NEUTRAL for x in sizes))
        found[task] = (slopes.written("+.2f"), verdict)
    return _together(found)


def negative_favours_high(data: Data) -> Finding:
    """From the part ``response``."""
    slopes = _slopes(data, "nsf:p=-0.5")
    return _together({task: (s.written("+.2f"), lower(s.negated())) for task, s in slopes.items()})


# --- cycles -------------------------------------------------------------------------------------


def lower_test_error(data: Data) -> Finding:
    """From the part ``images``."""
    found = {}
    for task, study in _measured(data).items():
        tested = study.data["metric"].replace("val_", "test_")
        percent = study.difference(_CYCLE, "adamw", _percent(tested))
        found[task] = (percent.written("+.2f", " points"), lower(percent))
    return _together(found)


def _percent(name: str) -> Figure:
    return lambda run: 100 * final(name)(run)


def lower_loss(data: Data) -> Finding:
    """From the part ``lead``."""
    return Finding(*_less(data, _CYCLE))


def _first_reached(study: Study, optimizer: str) -> Values:
    """The first evaluated step with a metric as good as AdamW's last; infinite if there is none."""
    metric = study.data["metric"]
    sign = 1 if study.data["direction"] == "min" else -1
    targets = {run["seed"]: sign * run["final"][metric] for run in study.runs("adamw")}

    def step(run: dict[str, Any]) -> float:
        curve = zip(run["evals"]["step"], run["evals"][metric], strict=True)
        reached = (float(s) for s, value in curve if sign * value <= targets[run["seed"]])
        return next(reached, math.inf)

    return study.values(optimizer, step)


def _log_ratio(ours: Sequence[float], theirs: Sequence[float]) -> Values:
    """Of steps; there is none to a step before the training, or to one that is never reached."""
    return Values(
        tuple(
            math.log2(a / b) if a > 0 and 0 < b < math.inf else math.nan
            for a, b in zip(ours, theirs, strict=True)
        )
    )


def _cost(study: Study) -> tuple[str, Values]:
    ours, theirs = (_first_reached(study, name) for name in (_CYCLE, "adamw"))
    share, own = (_median(steps) / study.data["steps"] for steps in (ours, theirs))
    missed = sum(map(math.isinf, ours.values))
    text = f"after {share:.0%} of the run" if math.isfinite(share) else "not reached"
    text += f" (AdamW itself after {own:.0%}; {missed} of {ours.n} seeds never)"
    # Of equal methods every second run never is as good: the least that it is late by counts.
    *_, before, end = study.runs("adamw")[0]["evals"]["step"]
    return text, _log_ratio([min(step, 2 * end - before) for step in ours.values], theirs.values)


def _median(found: Values) -> float:
    return float(np.median(found.values))


def quarter_of_the_cost(data: Data) -> Finding:
    """From the part ``images``. Of AdamW's cost to reach the same: it may be there before its end,
    and what it trains beyond that is no merit of another."""
    found = {}
    for task, study in _measured(data).items():
        text, ratio = _cost(study)
        found[task] = (text, as_large(ratio, math.log2(_QUARTER)))
    return _together(found, any)


def faster(data: Data) -> Finding:
    """From the part ``images``."""
    found = {}
    for task, study in _measured(data).items():
        text, ratio = _cost(study)
        found[task] = (text, lower(ratio))
    return _together(found)


def _decisions(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in run["lens"] if row["quantity"] == "decisions"]


def _aligned(run: dict[str, Any]) -> float:
    rows = _decisions(run)
    step = aligned(rows, rows[-1]["loss"]).step
    return math.nan if step is None else float(step)


def early_alignment(data: Data) -> Finding:
    """From the part ``images``: the first evaluation that decides nine in ten examples as the
    run's last does."""
    found = {}
    for task, study in _measured(data).items():
        ours, theirs = (study.values(optimizer, _aligned) for optimizer in (_CYCLE, "adamw"))
        ratio = _log_ratio(ours.values, theirs.values)
        share, own = (_median(steps) / study.data["steps"] for steps in (ours, theirs))
        text = f"after {share:.0%} of the run, AdamW after {own:.0%}, n = {ratio.n}"
        found[task] = (text, lower(ratio))
    return _together(found)


def accurate_at_high_loss(data: Data) -> Finding:
    """From the part ``images``: the loss at the first evaluation with 95% of the accuracy that
    AdamW ends with, less AdamW's there."""
    found = {}
    for task, study in _measured(data).items():
        targets = {
            run["seed"]: 0.95 * _decisions(run)[-1]["accuracy"] for run in study.runs("adamw")
        }
        higher = study.difference(_CYCLE, "adamw", _loss_at(targets))
        found[task] = (higher.written("+.3f"), lower(higher.negated()))
    return _together(found)


def _loss_at(accuracy: Mapping[int, float]) -> Figure:
    def loss(run: dict[str, Any]) -> float:
        rows = (row for row in _decisions(run) if row["accuracy"] >= accuracy[run["seed"]])
        return next((float(row["loss"]) for row in rows), math.nan)

    return loss


def negligible_cost(data: Data) -> Finding:
    """From the part ``lead``, whose runs no lens slows down."""
    runs = (Study(data).runs(name) for name in (_CYCLE, "adamw"))
    ratios = (a["seconds_per_step"] / b["seconds_per_step"] for a, b in zip(*runs, strict=True))
    change = Values(tuple(100 * (ratio - 1) for ratio in ratios))
    return Finding(change.written("+.1f", "% of a step"), lower(change, _NEGLIGIBLE))


# --- ours ---------------------------------------------------------------------------------------


def seven_tenths(data: Data) -> Finding:
    """From the part ``lead``."""
    return Finding(*_less(data, "nsf:p=0.7"))


def at_every_length(data: Data) -> Finding:
    """From the part ``steps``."""
    return _together(
        {f"{length} steps": _less(study, "nsf:p=0.7") for length, study in data.items()}
    )


def when_tuned(data: Data) -> Finding:
    """From the part ``tuned``."""
    return _together({"adamw": _tuned_less(data, "adamw")})


def beyond_others(data: Data) -> Finding:
    """From the part ``tuned``."""
    return _together(
        {
            name.partition(":")[0].rpartition(".")[2]: _tuned_less(data, name)
            for name in data["tuning"]
            if not name.startswith(("nsf:", "adamw"))
        }
    )


def _tuned_less(data: Data, name: str) -> tuple[str, Verdict]:
    """The tuned p = 0.7 less another optimizer as it was tuned."""
    return _less(data, *(data["tuning"][key]["optimizer"] for key in ("nsf:p=0.7", name)))


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
