"""The claims of the SMI paper, judged by the parts' stored data alone.

The paper often claims something of "SMI" or of "SMI (best)" and names no run. We judge such a claim
by Run 5, the configuration of the abstract. The validation loss of a run is the best of its
evaluations, as in the paper's Figure 2.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from bandwise.figures.words import MINUS
from bandwise.study.paired import Sample
from papers.paper import Claim, Data, Finding
from papers.smi.measures import (
    activation,
    added,
    best_val,
    early_roughness,
    iterations_to,
    late_variance,
    law,
    mean_square,
    roughness,
    thresholds,
    weight,
)
from papers.smi.parts import domains
from papers.smi.parts.overhead import ALONE, WITHIN_SMI
from papers.smi.parts.runs import ADAMW, AGGRESSIVE, COSINE, HIGHER_EMA, TOP_75
from papers.smi.parts.sensitivity import BEST, VARIED
from papers.stored import Measure, Study, final
from papers.timing import median_interval
from papers.verdicts import as_large, lower, percent, together, told

Judge = Callable[[Data], Finding]
_LAST = final("val_loss")
# Performance is maintained if the loss is at most so many percent above the baseline's.
MARGIN = 1.0


def _change(
    measure: Measure, claimed: float | None, optimizer: str = COSINE, baseline: str = ADAMW
) -> Judge:
    """Judge by the change of a figure of Runs 0 to 5, in percent.

    Where the paper claims no figure, the change must be negative.
    """

    def judge(data: Data) -> Finding:
        change = Study(data["study"]).change(optimizer, baseline, measure)
        holds = lower(change) if claimed is None else as_large(change, claimed)
        return Finding(percent(change), holds)

    return judge


def _maintained(measure: Measure) -> Judge:
    """Whether Run 5's loss is at most ``MARGIN`` percent above the baseline's."""

    def judge(data: Data) -> Finding:
        change = Study(data["study"]).change(COSINE, ADAMW, measure)
        return Finding(percent(change), lower(change, MARGIN))

    return judge


def _late(claimed: float, optimizer: str, baseline: str) -> Judge:
    """Judge by the late variance, where the logged losses are those of single iterations."""

    def judge(data: Data) -> Finding:
        found = _change(late_variance, claimed, optimizer, baseline)(data)
        every, *_ = data["study"]["runs"][0]["training"]["step"]
        if every == 1:
            return found
        why = f"the paper's are losses of single iterations, ours are means over {every}"
        return Finding(found.ours, None, why)

    return judge


def _iterations(curve: str, which: int, claimed: float) -> Judge:
    def judge(data: Data) -> Finding:
        measure = iterations_to(curve, thresholds(data)[which])
        return _change(measure, claimed, TOP_75)(data)

    return judge


def best_validation(data: Data) -> Finding:
    """Run 4 has the lowest validation loss of all."""
    study = Study(data["study"])
    others = [text for text in study.optimizers if text != TOP_75]
    return _best(study, TOP_75, others, best_val)


def _best(
    study: Study, best: str, others: Sequence[str], measure: Measure, margin: float = 0
) -> Finding:
    """Whether no other has a loss that is more than ``margin`` percent below the best's."""
    changes = [study.change(other, best, measure) for other in others]
    nearest = min(changes, key=lambda change: math.inf if change.mean is None else change.mean)
    return Finding(
        f"the best of the others: {percent(nearest)} in loss",
        told(
            all(change.above(-margin) for change in changes),
            # One of several is better by chance more often than a single one is.
            any(
                change.below(-margin, len(changes)) or change.by_divergence() == "better"
                for change in changes
            ),
        ),
    )


def faster(data: Data) -> Finding:
    """Run 5's inference."""
    ours = _speedups(data["faster"][COSINE])
    control = [abs(each["median"]) for each in data["control"]]
    beside = f"; two seeds of AdamW differ by up to {max(control):.2f}%" if control else ""
    return Finding(percent(ours) + beside, as_large(ours, 15.0))


def all_faster(data: Data) -> Finding:
    """Every run's inference: 12% at the least."""
    found = [_speedups(each) for each in data["faster"].values()]
    medians = [median for each in found for median in each.values if median is not None]
    text = f"{min(medians):+.2f}% to {max(medians):+.2f}% over {len(medians)} models"
    holds = together([as_large(each, 12.0) for each in found])
    return Finding(text.replace("-", MINUS), holds)


def _speedups(timings: Sequence[Mapping[str, float]]) -> Sample:
    return Sample(tuple(each["median"] for each in timings))


def overhead(data: Data) -> Finding:
    """The time that SMI adds to a step of the largest model measured."""
    size = data["sizes"][-1]
    more = added(size)
    low, high = median_interval(more)
    tokens = data["batch"] * size["context"]
    return Finding(
        f"{statistics.median(more):+.1f}% [{low:+.1f}, {high:+.1f}] at {size['parameters']:,} "
        f"parameters and {tokens:,} tokens a step, {len(more)} rounds"
    )


def scaling(data: Data) -> Finding:
    """(18): gamma is within a factor of two of the paper's, and the law beats a constant."""
    fitted = law(data)
    text = f"gamma = {fitted.gamma:.3g}, R² = {fitted.r_squared:.2f}, {len(data['sizes'])} sizes"
    if len(data["sizes"]) < 3:
        return Finding(text)
    holds = fitted.r_squared > 0 and 0.025 <= fitted.gamma <= 0.1
    return Finding(text.replace("-", MINUS), holds)


def _state(data: Data) -> tuple[float, float]:
    """The bytes a parameter of AdamW's state, and those that SMI adds."""
    size = data["sizes"][-1]
    base = size["state_bytes"][ALONE] / size["parameters"]
    return base, size["state_bytes"][WITHIN_SMI] / size["parameters"] - base


def doubled(data: Data) -> Finding:
    """The memory of the optimizer's state, which is counted and does not vary."""
    base, more = _state(data)
    return Finding(
        f"{100 * more / base:+.0f}%: {more:.2f} bytes a parameter on AdamW's {base:.2f} for half a "
        f"spectrum; Algorithm 1 keeps a whole one, {400 / base:+.0f}%"
    )


def one_tensor(data: Data) -> Finding:
    """One float32 tensor a parameter at the most."""
    _, more = _state(data)
    return Finding(f"{more / 4:.2f} float32 values a parameter (half a spectrum)", more / 4 <= 1.05)


def best_text(study: Study, by_factor: Mapping[str, str]) -> tuple[str, str]:
    """The learning rate's factor with the lowest mean loss, and the optimizer's text there."""
    means = {factor: study.sample(text, _LAST).mean for factor, text in by_factor.items()}
    known = {factor: mean for factor, mean in means.items() if mean is not None}
    factor = min(known, key=lambda f: known[f]) if known else "1.0"
    return factor, by_factor[factor]


def combined(data: Data) -> Finding:
    """SMI around Lion and SAM, each at its best learning rate, loses at most ``MARGIN`` percent."""
    study = Study(data["study"])
    parts, outcomes = [], []
    for base in ("Lion", "SAM"):
        _, alone = best_text(study, data["texts"][base])
        _, around = best_text(study, data["texts"][f"SMI+{base}"])
        change = study.change(around, alone, _LAST)
        parts.append(f"{base} {percent(change)}")
        outcomes.append(lower(change, MARGIN))
    return Finding("; ".join(parts) + " in loss", together(outcomes))


def _time(name: str, least: float, most: float) -> Judge:
    """Judge by the time of a training step over AdamW's, round by round."""

    def judge(data: Data) -> Finding:
        steps = data["steps"]
        pairs = zip(steps[name]["seconds"], steps["AdamW"]["seconds"], strict=True)
        ratios = [one / other for one, other in pairs]
        low, high = median_interval(ratios)
        median = statistics.median(ratios)
        text = f"{median:.2f} times AdamW's [{low:.2f}, {high:.2f}], {len(ratios)} rounds"
        return Finding(text, told(least <= low and high <= most, high < least or low > most))

    return judge


def lion_memory(data: Data) -> Finding:
    """The bytes of state, which are counted."""
    ratio = data["steps"]["Lion"]["state_bytes"] / data["steps"]["AdamW"]["state_bytes"]
    text = f"{100 * (ratio - 1):+.0f}%".replace("-", MINUS)
    return Finding(text, abs(ratio - 0.5) < 0.05)


def _best_value(name: str, margin: float = 0) -> Judge:
    """Judge the paper's value of a setting by the others that were tried."""

    def judge(data: Data) -> Finding:
        return _best(Study(data), BEST, list(VARIED[name].values()), _LAST, margin)

    return judge


def sensitivity(study: Study, name: str) -> Sample:
    """How much a hyperparameter moves the loss: its mean square change over the tried values.

    By seed, against Run 5's settings.
    """
    return mean_square([study.difference(text, BEST, _LAST) for text in VARIED[name].values()])


def sensitivity_percent(study: Study, name: str) -> str:
    """The root of the mean ``sensitivity``, in percent of the mean loss at Run 5's settings."""
    square, loss = sensitivity(study, name).mean, study.sample(BEST, _LAST).mean
    return f"{100 * math.sqrt(square) / loss:.2f}%" if square is not None and loss else "no figure"


def most_sensitive(data: Data) -> Finding:
    """How far each setting moves the loss."""
    study = Study(data)
    moved = ", ".join(f"{name} {sensitivity_percent(study, name)}" for name in VARIED)
    return Finding(f"losses move by: {moved}; n = {len(study.runs(BEST))}")


def _domain(task: str) -> Judge:
    def judge(data: Data) -> Finding:
        study = Study(data[task])
        metric = study.data["metric"]
        change = study.change(domains.SMI, domains.ADAMW, final(metric))
        return Finding(f"{percent(change)} in {metric.removeprefix('val_')}")

    return judge


_NO_FORMULA = "no formula"
_NO_ZERO = "no size below which an activation is zero"
_IN_WORDS = "words, no measure"
CLAIMS: Sequence[Claim] = (
    Claim("abstract", "Run 5 maintains the validation loss: it is at most 1% above AdamW's (the "
          "margin is ours)", "-0.1%, SEM 0.3%",
          "runs", _maintained(best_val), "Run 5's loss"),
    Claim("5.1", "Run 5 maintains the training loss: it is at most 1% above AdamW's (the margin is "
          "ours)", "0.0%, SEM 1.0%",
          "runs", _maintained(final("train_loss")), "Run 5's loss"),
    Claim("Table 1", "Run 4 (top 75%) lowers the validation loss", "-0.2%",
          "runs", _change(best_val, -0.2, TOP_75), "Run 4's loss"),
    Claim("Table 1", "Run 4 lowers the training loss", "-0.7%",
          "runs", _change(final("train_loss"), -0.7, TOP_75), "Run 4's loss"),
    Claim("5.1", "Run 4 has the lowest validation loss of the runs (Table 1 has Run 2's lower)",
          "the best", "runs", best_validation, "Run 4's loss"),
    Claim("Table 9", "keeping 75% (Run 4) beats keeping 50% (Run 3) in validation loss", "-0.14%",
          "runs", _change(best_val, -0.14, TOP_75, HIGHER_EMA), "Run 4's loss"),
    Claim("Table 7", "Run 4 needs fewer iterations to a training loss", "-8.0%",
          "runs", _iterations("training", 0, -8.0), "Run 4's speed"),
    Claim("Table 7", "Run 4 needs fewer iterations to a validation loss", "-6.8%",
          "runs", _iterations("evals", 1, -6.8), "Run 4's speed"),
    Claim("Table 2", "the average spectral norm is smaller", "-6.8%",
          "runs", _change(weight("average_spectral_norm"), -6.8)),
    Claim("Table 2", "spectral norms vary less across layers", "-28.9%",
          "runs", _change(weight("spectral_norm_variance"), -28.9)),
    Claim("Table 2", "condition numbers are lower on average", "-18.1%",
          "runs", _change(weight("condition_number"), -18.1)),
    Claim("Table 2", "the effective rank ratio is lower", "-4.2%",
          "runs", _change(weight("effective_rank_ratio"), -4.2), undefined=_NO_FORMULA),
    Claim("Table 3", "attention weights are sparser", "+34.8%", "runs",
          _change(activation("attention_weights"), 34.8), "sparsity", undefined=_NO_ZERO),
    Claim("Table 3", "feed-forward activations are sparser", "+26.8%", "runs",
          _change(activation("feed_forward_hidden"), 26.8), "sparsity", undefined=_NO_ZERO),
    Claim("Table 3", "layer norm outputs are sparser", "+33.3%", "runs",
          _change(activation("layer_norm_outputs"), 33.3), "sparsity", undefined=_NO_ZERO),
    Claim("Table 3", "activations are sparser overall", "+33.3%", "runs",
          _change(activation("overall_average"), 33.3), "sparsity", undefined=_NO_ZERO),
    Claim("Table 4", "the magnitudes of weights vary less", "-8.8%",
          "runs", _change(weight("parameter_magnitude_variance"), -8.8)),
    Claim("Table 4", "the kurtosis of weights is lower", "-12.5%",
          "runs", _change(weight("kurtosis"), -12.5)),
    Claim("Table 4", "the effective parameter ratio is lower", "-6.4%",
          "runs", _change(weight("effective_parameter_ratio"), -6.4), undefined=_NO_FORMULA),
    Claim("Table 7", "Run 5's late training loss varies less than AdamW's", "-43.5%",
          "runs", _late(-43.5, COSINE, ADAMW)),
    Claim("Table 7", "a cosine alpha (Run 5) makes the late loss vary less than a linear one "
          "(Run 4)", "-13.3%", "runs", _late(-13.3, COSINE, TOP_75)),
    Claim("Table 7", "Run 5's training curve is smoother than AdamW's",
          "“very high” against “moderate”",
          "runs", _change(roughness, None), "smoothness", undefined=_IN_WORDS),
    Claim("5.4", "early training is smoother with SMI (Run 5)", "no figure",
          "runs", _change(early_roughness, None), "smoothness", undefined=_IN_WORDS),
    Claim("Table 1", "Run 5's model infers faster", "+15.0%",
          "inference", faster, "inference", scale="does not matter"),
    Claim("5.1", "every SMI run's model infers faster", "+12.0% to +15.0%",
          "inference", all_faster, "inference", scale="does not matter"),
    Claim("(18)", "the time added grows as gamma log P (to base e)", "gamma ≈ 0.05",
          "overhead", scaling, scale="same tokens"),
    Claim("5.7", "SMI stores one more tensor a parameter", "1",
          "overhead", one_tensor, scale="does not matter"),
    Claim("5.3.2", "SMI can be combined with Lion and with SAM: around them it loses at most 1% "
          "(the margin is ours)", "no figure", "optimizers", combined),
    Claim("5.3.1", "Lion halves the memory of AdamW's state", "-50%",
          "optimizers", lion_memory, scale="does not matter"),
    Claim("5.3.1", "Sophia takes two to three times as long (here it estimates the Hessian at "
          "every tenth step; the paper does not say how often)", "2 to 3",
          "optimizers", _time("Sophia", 2, 3), scale="same tokens"),
    Claim("5.3.1", "SAM takes half as long again, to twice as long", "1.5 to 2",
          "optimizers", _time("SAM", 1.5, 2), scale="same tokens"),
    Claim("3.6.1", "q = 0.25 is a good default: no other value tried is better by more than 1% "
          "(the margin is ours)", "recommended",
          "sensitivity", _best_value("Frequency threshold (q)", MARGIN)),
    Claim("3.6.2", "β = 0.99 is a good default, in the same sense", "recommended",
          "sensitivity", _best_value("EMA decay (β)", MARGIN)),
    Claim("3.6.3", "a cosine alpha is a good default, in the same sense", "recommended",
          "sensitivity", _best_value("Alpha schedule", MARGIN)),
    Claim("Table 10", "alpha from 0.1 to 0.5 is the best range", "“optimal”",
          "sensitivity", _best_value("Alpha range")),
    Claim("6.2", "the schedule of alpha is the most sensitive setting", "“high”",
          "sensitivity", most_sensitive, undefined="neither the values tried nor a measure"),
)  # fmt: skip

APART: Sequence[Claim] = (
    Claim("5.1", "Run 1 (alpha to 0.9) ends with a larger training loss: too much of the filtered "
          "gradient harms", "+3.1%",
          "runs", _change(final("train_loss"), 3.1, AGGRESSIVE)),
    Claim("5.7", "SMI lengthens the training", "+4.5%, at 16,384 tokens a step",
          "overhead", overhead),
    Claim("3.5.2", "SMI about doubles the memory of the optimizer's state", "+100%",
          "overhead", doubled),
    *(
        Claim("6.1.1" if task == "char-lstm" else "7.3.4", f"SMI may help with {words}",
              "no figure", "domains", _domain(task))
        for task, words in domains.DOMAINS.items()
    ),
)  # fmt: skip
