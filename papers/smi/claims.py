"""The claims of the SMI paper, judged by the parts' stored data alone.

The paper often claims something of "SMI" or of "SMI (best)" and names no run. We judge such a claim
by Run 5, the configuration of the abstract.
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
_VAL = final("val_loss")
_LENGTHENED = 1.5 * 4.5  # percent of a training step


def _change(
    measure: Measure, claimed: float | None, optimizer: str = COSINE, baseline: str = ADAMW
) -> Judge:
    """Judge by the change of a figure of Runs 0 to 5, in percent.

    Where the paper claims no figure, the change must be negative.
    """

    def judge(data: Data) -> Finding:
        change = Study(data["study"]).change(optimizer, baseline, measure)
        verdict = lower(change) if claimed is None else as_large(change, claimed)
        return Finding(percent(change), verdict)

    return judge


def _iterations(curve: str, which: int, claimed: float) -> Judge:
    def judge(data: Data) -> Finding:
        measure = iterations_to(curve, thresholds(data)[which])
        return _change(measure, claimed, TOP_75)(data)

    return judge


def _best_validation(data: Data) -> Finding:
    """Run 4 has the lowest losses of all."""
    study = Study(data["study"])
    others = [text for text in study.optimizers if text != TOP_75]
    return _best(study, TOP_75, others)


def _best(study: Study, best: str, others: Sequence[str]) -> Finding:
    """Whether all others have larger losses than the best."""
    changes = [study.change(other, best, _VAL) for other in others]
    nearest = min(changes, key=lambda change: math.inf if change.mean is None else change.mean)
    return Finding(
        f"the best of the others: {percent(nearest)} in loss",
        told(
            all(change.above(0) for change in changes),
            # One of several is better by chance more often than a single one is.
            any(
                change.below(0, len(changes)) or change.by_divergence() == "better"
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
    verdict = together([as_large(each, 12.0) for each in found])
    return Finding(text.replace("-", MINUS), verdict)


def _speedups(timings: Sequence[Mapping[str, float]]) -> Sample:
    return Sample(tuple(each["median"] for each in timings))


def overhead(data: Data) -> Finding:
    """The time that SMI adds to a step of the largest model measured."""
    size = data["sizes"][-1]
    more = added(size)
    low, high = median_interval(more)
    tokens = data["batch"] * size["context"]
    text = (
        f"{statistics.median(more):+.1f}% [{low:+.1f}, {high:+.1f}] at {size['parameters']:,} "
        f"parameters and {tokens:,} tokens a step, {len(more)} rounds"
    )
    return Finding(text, told(high <= _LENGTHENED, low > _LENGTHENED))


def scaling(data: Data) -> Finding:
    """(18): gamma is within a factor of two of the paper's, and the law beats a constant."""
    fitted = law(data)
    text = f"gamma = {fitted.gamma:.3g}, R² = {fitted.r_squared:.2f}, {len(data['sizes'])} sizes"
    if len(data["sizes"]) < 3:
        return Finding(text, "cannot tell yet")
    holds = fitted.r_squared > 0 and 0.025 <= fitted.gamma <= 0.1
    return Finding(text.replace("-", MINUS), "holds" if holds else "does not hold")


def _state(data: Data) -> tuple[float, float]:
    """The bytes a parameter of AdamW's state, and those that SMI adds."""
    size = data["sizes"][-1]
    base = size["state_bytes"][ALONE] / size["parameters"]
    return base, size["state_bytes"][WITHIN_SMI] / size["parameters"] - base


def doubled(data: Data) -> Finding:
    """The memory of the optimizer's state, which is counted and does not vary."""
    base, more = _state(data)
    text = f"{100 * more / base:+.0f}%: {more:.2f} bytes a parameter on AdamW's {base:.2f}"
    return Finding(text, "holds" if more / base >= 0.75 else "does not hold")


def one_tensor(data: Data) -> Finding:
    """One float32 tensor a parameter at the most."""
    _, more = _state(data)
    text = f"{more / 4:.2f} float32 values a parameter (half a spectrum)"
    return Finding(text, "holds" if more / 4 <= 1.05 else "does not hold")


def best_text(study: Study, by_factor: Mapping[str, str]) -> tuple[str, str]:
    """The learning rate's factor with the lowest mean loss, and the optimizer's text there."""
    means = {factor: study.sample(text, _VAL).mean for factor, text in by_factor.items()}
    known = {factor: mean for factor, mean in means.items() if mean is not None}
    factor = min(known, key=lambda f: known[f]) if known else "1.0"
    return factor, by_factor[factor]


def combined(data: Data) -> Finding:
    """SMI around Lion, Sophia and SAM, each at its best learning rate, loses at most 1%."""
    study = Study(data["study"])
    parts, verdicts = [], []
    for base in ("Lion", "Sophia", "SAM"):
        _, alone = best_text(study, data["texts"][base])
        _, around = best_text(study, data["texts"][f"SMI+{base}"])
        change = study.change(around, alone, _VAL)
        parts.append(f"{base} {percent(change)}")
        verdicts.append(lower(change, 1.0))
    return Finding("; ".join(parts) + " in loss", together(verdicts))


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
    return Finding(text, "holds" if abs(ratio - 0.5) < 0.05 else "does not hold")


def _best_value(name: str) -> Judge:
    def judge(data: Data) -> Finding:
        return _best(Study(data), BEST, list(VARIED[name].values()))

    return judge


def sensitivity(study: Study, name: str) -> Sample:
    """How much a hyperparameter moves the loss: its mean square change over the tried values.

    By seed, against Run 5's settings.
    """
    return mean_square([study.difference(text, BEST, _VAL) for text in VARIED[name].values()])


def sensitivity_percent(study: Study, name: str) -> str:
    """The root of the mean ``sensitivity``, in percent of the mean loss at Run 5's settings."""
    square, loss = sensitivity(study, name).mean, study.sample(BEST, _VAL).mean
    return f"{100 * math.sqrt(square) / loss:.2f}%" if square is not None and loss else "no figure"


def most_sensitive(data: Data) -> Finding:
    """The schedule of alpha moves the loss more than q and β do."""
    study = Study(data)
    moved = ", ".join(f"{name} {sensitivity_percent(study, name)}" for name in VARIED)
    ours = sensitivity(study, "Alpha schedule")
    others = ("Frequency threshold (q)", "EMA decay (β)")
    more = [ours.minus(sensitivity(study, other)) for other in others]
    # A run that diverged leaves no figure: it speaks neither for the setting nor against it.
    verdict = told(
        all(each.above(0) for each in more),
        any(each.below(0, len(more)) for each in more),
    )
    return Finding(f"losses move by: {moved}; n = {ours.n}", verdict)


def _domain(task: str) -> Judge:
    def judge(data: Data) -> Finding:
        study = Study(data[task])
        metric = study.data["metric"]
        change = study.change(domains.SMI, domains.ADAMW, final(metric))
        worse = change if study.data["direction"] == "min" else change.negated()
        text = f"{percent(change)} in {metric.removeprefix('val_')}"
        return Finding(text, lower(worse))

    return judge


CLAIMS: Sequence[Claim] = (
    Claim("abstract", "the model's performance is maintained: Run 5's validation loss", "-0.1%",
          "runs", _change(_VAL, -0.1)),
    Claim("Table 1", "Run 4 (top 75%) lowers the validation loss", "-0.2%",
          "runs", _change(_VAL, -0.2, TOP_75)),
    Claim("Table 1", "Run 4 lowers the training loss", "-0.7%",
          "runs", _change(final("train_loss"), -0.7, TOP_75)),
    Claim("Table 1", "Run 1 (alpha to 0.9) raises the training loss", "+3.1%",
          "runs", _change(final("train_loss"), 3.1, AGGRESSIVE)),
    Claim("5.1", "Run 4 has the lowest validation loss of the runs", "the best",
          "runs", _best_validation),
    Claim("Table 2", "the average spectral norm is smaller", "-6.8%",
          "runs", _change(weight("average_spectral_norm"), -6.8)),
    Claim("Table 2", "spectral norms vary less across layers", "-28.9%",
          "runs", _change(weight("spectral_norm_variance"), -28.9)),
    Claim("Table 2", "condition numbers are lower", "-18.1%",
          "runs", _change(weight("condition_number"), -18.1)),
    Claim("Table 2", "the effective rank ratio is lower", "-4.2%",
          "runs", _change(weight("effective_rank_ratio"), -4.2)),
    Claim("Table 3", "attention weights are sparser", "+34.8%",
          "runs", _change(activation("attention_weights"), 34.8)),
    Claim("Table 3", "feed-forward activations are sparser", "+26.8%",
          "runs", _change(activation("feed_forward_hidden"), 26.8)),
    Claim("Table 3", "layer norm outputs are sparser", "+33.3%",
          "runs", _change(activation("layer_norm_outputs"), 33.3)),
    Claim("Table 3", "activations are sparser overall", "+33.3%",
          "runs", _change(activation("overall_average"), 33.3)),
    Claim("Table 4", "the magnitudes of weights vary less", "-8.8%",
          "runs", _change(weight("parameter_magnitude_variance"), -8.8)),
    Claim("Table 4", "the kurtosis of weights is lower", "-12.5%",
          "runs", _change(weight("kurtosis"), -12.5)),
    Claim("Table 4", "the effective parameter ratio is lower", "-6.4%",
          "runs", _change(weight("effective_parameter_ratio"), -6.4)),
    Claim("Table 7", "Run 4 needs fewer iterations to a training loss", "-8.0%",
          "runs", _iterations("training", 0, -8.0)),
    Claim("Table 7", "Run 4 needs fewer iterations to a validation loss", "-6.8%",
          "runs", _iterations("evals", 1, -6.8)),
    Claim("Table 7", "Run 5's late training loss varies less", "-43.5%",
          "runs", _change(late_variance, -43.5)),
    Claim("Table 7", "Run 5's training curve is smoother", "“very high” against “moderate”",
          "runs", _change(roughness, None)),
    Claim("5.4", "early training is smoother with SMI (Run 5)", "no figure",
          "runs", _change(early_roughness, None)),
    Claim("5.5", "a cosine alpha (Run 5) makes the late loss vary less than a linear one (Run 4)",
          "-13.3%", "runs", _change(late_variance, -13.3, COSINE, TOP_75)),
    Claim("Table 9", "keeping 75% (Run 4) beats keeping 50% (Run 3) in validation loss", "-0.14%",
          "runs", _change(_VAL, -0.14, TOP_75, HIGHER_EMA)),
    Claim("Table 1", "Run 5's model infers faster", "+15.0%", "inference", faster),
    Claim("5.1", "every SMI run's model infers faster", "+12.0% to +15.0%",
          "inference", all_faster),
    Claim("Table 1", "SMI lengthens the training (up to +6.75% counts as that)",
          "+4.5%, at 16,384 tokens a step", "overhead", overhead),
    Claim("(18)", "the time added grows as gamma log P (to base e)", "gamma ≈ 0.05", "overhead",
          scaling),
    Claim("3.5.2", "SMI about doubles the memory of the optimizer's state", "+100%", "overhead",
          doubled),
    Claim("5.7", "SMI stores one more tensor a parameter", "1", "overhead", one_tensor),
    Claim("5.3.2", "SMI can be combined with Lion, Sophia and SAM", "no figure", "optimizers",
          combined),
    Claim("5.3.1", "Lion halves the memory of AdamW's state", "-50%", "optimizers", lion_memory),
    Claim("5.3.1", "Sophia takes two to three times as long", "2 to 3", "optimizers",
          _time("Sophia", 2, 3)),
    Claim("5.3.1", "SAM takes half as long again, to twice as long", "1.5 to 2", "optimizers",
          _time("SAM", 1.5, 2)),
    Claim("3.6.1", "q = 0.25 does best with transformers", "recommended", "sensitivity",
          _best_value("Frequency threshold (q)")),
    Claim("3.6.2", "β = 0.99 does best with AdamW", "recommended", "sensitivity",
          _best_value("EMA decay (β)")),
    Claim("3.6.3", "a cosine alpha beats a linear or constant one", "recommended", "sensitivity",
          _best_value("Alpha schedule")),
    Claim("Table 10", "alpha from 0.1 to 0.5 is the best range", "“optimal”", "sensitivity",
          _best_value("Alpha range")),
    Claim("6.2", "the schedule of alpha is the most sensitive setting", "“high”", "sensitivity",
          most_sensitive),
    *(
        Claim("7.3.4", f"SMI helps with {words}", "“potential”", "domains", _domain(task))
        for task, words in domains.DOMAINS.items()
    ),
)  # fmt: skip
