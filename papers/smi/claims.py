"""The claims of the paper, and how they are judged.

A claim on "SMI" or "SMI (best)" is judged by Run 5, the configuration of the abstract, where the
paper does not name another.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from bandwise.figures.words import MINUS
from papers.paper import Claim, Data, Finding
from papers.smi.domains import DOMAINS, OPTIMIZERS
from papers.smi.measures import (
    activation,
    added,
    early_roughness,
    iterations_to,
    late_variance,
    law,
    roughness,
    thresholds,
    weight,
)
from papers.smi.overhead import ADAMW as BASE
from papers.smi.overhead import AROUND
from papers.smi.runs import ADAMW, AGGRESSIVE, COSINE, HIGHER_EMA, TOP_75
from papers.smi.sensitivity import BEST, VARIED
from papers.stored import Figure, Study, Values, final, within
from papers.verdicts import as_large, lower, together, told

Judge = Callable[[Data], Finding]
_VAL = final("val_loss")
_LENGTHENED = 1.5 * 4.5  # percent of a training step


def _change(
    figure: Figure, claimed: float, optimizer: str = COSINE, baseline: str = ADAMW
) -> Judge:
    """By the change of a figure of Runs 0 to 5, in percent."""

    def judge(data: Data) -> Finding:
        change = Study(data["study"]).change(optimizer, baseline, figure)
        return Finding(change.percent(), as_large(change, claimed))

    return judge


def _iterations(curve: str, which: int, claimed: float) -> Judge:
    def judge(data: Data) -> Finding:
        figure = iterations_to(curve, thresholds(data)[which])
        return _change(figure, claimed, TOP_75)(data)

    return judge


def _smoother(figure: Figure, optimizer: str) -> Judge:
    def judge(data: Data) -> Finding:
        change = Study(data["study"]).change(optimizer, ADAMW, figure)
        return Finding(change.percent(), lower(change))

    return judge


def _best_validation(data: Data) -> Finding:
    """Run 4 has the lowest losses of all."""
    study = Study(data["study"])
    others = [text for text in study.optimizers if text != TOP_75]
    return _best([study.change(other, TOP_75, _VAL) for other in others])


def _best(differences: Sequence[Values]) -> Finding:
    """Whether all the others are worse: have larger losses, by differences from the best."""
    nearest = min(differences, key=lambda difference: difference.mean)
    return Finding(
        f"the best of the others: {nearest.percent()} in loss",
        told(
            all(difference.above(0) for difference in differences),
            # That one of several is better is found by chance more often.
            any(difference.below(0, len(differences)) for difference in differences),
        ),
    )


def faster(data: Data) -> Finding:
    """Run 5's inference."""
    ours = Values(tuple(each["median"] for each in data["faster"][COSINE]))
    control = [abs(each["median"]) for each in data["control"]]
    beside = f"; two seeds of AdamW differ by up to {max(control):.2f}%" if control else ""
    return Finding(ours.percent() + beside, as_large(ours, 15.0))


def all_faster(data: Data) -> Finding:
    """Every run's inference: 12% at the least."""
    found = [Values(tuple(r["median"] for r in runs)) for runs in data["faster"].values()]
    medians = [median for each in found for median in each.values]
    text = f"{min(medians):+.2f}% to {max(medians):+.2f}% over {len(medians)} models"
    verdict = together([as_large(each, 12.0) for each in found])
    return Finding(text.replace("-", MINUS), verdict)


def overhead(data: Data) -> Finding:
    """Of the largest model measured."""
    size = data["sizes"][-1]
    percent = added(size)
    low, high = within(percent)
    tokens = data["batch"] * size["context"]
    text = (
        f"{statistics.median(percent):+.1f}% [{low:+.1f}, {high:+.1f}] at {size['parameters']:,} "
        f"parameters and {tokens:,} tokens a step, {len(percent)} rounds"
    )
    return Finding(text, told(high <= _LENGTHENED, low > _LENGTHENED))


def scaling(data: Data) -> Finding:
    """(18): gamma within a factor of two of the paper's, and better than a constant."""
    fitted = law(data)
    text = f"gamma = {fitted.gamma:.3g}, R² = {fitted.r_squared:.2f}, {len(data['sizes'])} sizes"
    if len(data["sizes"]) < 3:
        return Finding(text, "cannot tell yet")
    holds = fitted.r_squared > 0 and 0.025 <= fitted.gamma <= 0.1
    return Finding(text.replace("-", MINUS), "holds" if holds else "does not hold")


def _state(data: Data) -> tuple[float, float]:
    """Bytes a parameter of AdamW's state, and of what SMI adds."""
    size = data["sizes"][-1]
    base = size["state_bytes"][BASE] / size["parameters"]
    return base, size["state_bytes"][AROUND] / size["parameters"] - base


def doubled(data: Data) -> Finding:
    """Memory of the optimizer's state, which is counted and does not vary."""
    base, more = _state(data)
    text = f"{100 * more / base:+.0f}%: {more:.2f} bytes a parameter on AdamW's {base:.2f}"
    return Finding(text, "holds" if more / base >= 0.75 else "does not hold")


def one_tensor(data: Data) -> Finding:
    """One float32 tensor a parameter at the most."""
    _, more = _state(data)
    text = f"{more / 4:.2f} float32 values a parameter (half a spectrum)"
    return Finding(text, "holds" if more / 4 <= 1.05 else "does not hold")


def best_text(study: Study, by_factor: dict[str, str]) -> tuple[str, str]:
    """The learning rate's factor at which the mean loss is lowest, and the optimizer's text."""
    means = {factor: study.values(text, _VAL).mean for factor, text in by_factor.items()}
    known = {factor: mean for factor, mean in means.items() if math.isfinite(mean)}
    factor = min(known, key=lambda f: known[f]) if known else "1.0"
    return factor, by_factor[factor]


def combined(data: Data) -> Finding:
    """SMI around Lion, Sophia and SAM, each at its best learning rate, loses nothing beyond 1%."""
    study = Study(data["study"])
    parts, verdicts = [], []
    for base in ("Lion", "Sophia", "SAM"):
        _, alone = best_text(study, data["texts"][base])
        _, around = best_text(study, data["texts"][f"SMI+{base}"])
        change = study.change(around, alone, _VAL)
        parts.append(f"{base} {change.percent()}")
        verdicts.append(lower(change, 1.0))
    return Finding("; ".join(parts) + " in loss", together(verdicts))


def _time(name: str, least: float, most: float) -> Judge:
    """By the time of a training step over AdamW's, round by round."""

    def judge(data: Data) -> Finding:
        steps = data["steps"]
        pairs = zip(steps[name]["seconds"], steps["AdamW"]["seconds"], strict=True)
        ratios = [one / other for one, other in pairs]
        low, high = within(ratios)
        median = statistics.median(ratios)
        text = f"{median:.2f} times AdamW's [{low:.2f}, {high:.2f}], {len(ratios)} rounds"
        return Finding(text, told(least <= low and high <= most, high < least or low > most))

    return judge


def lion_memory(data: Data) -> Finding:
    """Bytes of state, counted."""
    ratio = data["steps"]["Lion"]["state_bytes"] / data["steps"]["AdamW"]["state_bytes"]
    text = f"{100 * (ratio - 1):+.0f}%".replace("-", MINUS)
    return Finding(text, "holds" if abs(ratio - 0.5) < 0.05 else "does not hold")


def _best_value(name: str) -> Judge:
    def judge(data: Data) -> Finding:
        study = Study(data)
        return _best([study.change(text, BEST, _VAL) for text in VARIED[name].values()])

    return judge


def spread(data: Data, name: str) -> float:
    """How far the mean losses of a hyperparameter's values lie apart, in percent of the best's."""
    study = Study(data)
    best, *others = [study.values(text, _VAL).mean for text in (BEST, *VARIED[name].values())]
    return 100 * (max(best, *others) - min(best, *others)) / best


def most_sensitive(data: Data) -> Finding:
    """Alpha's schedule spreads the loss more than q and β do, on every seed or on none."""
    study = Study(data)
    spreads = {name: spread(data, name) for name in VARIED}
    text = ", ".join(f"{name} {value:.2f}%" for name, value in spreads.items())
    differences = []
    for other in ("Frequency threshold (q)", "EMA decay (β)"):
        per_seed = [
            [_seed_spread(study, name, seed) for seed in range(len(data["seeds"]))]
            for name in ("Alpha schedule", other)
        ]
        pairs = zip(*per_seed, strict=True)
        differences.append(Values(tuple(one - two for one, two in pairs)))
    # Not by ``lower``: a spread that is infinite does not speak against the setting.
    verdict = told(
        all(difference.above(0) for difference in differences),
        any(difference.below(0) for difference in differences),
    )
    return Finding(f"losses spread by: {text}; n = {len(data['seeds'])}", verdict)


def _seed_spread(study: Study, name: str, seed: int) -> float:
    losses = [study.values(text, _VAL).values[seed] for text in (BEST, *VARIED[name].values())]
    return max(losses) - min(losses)


def _domain(task: str) -> Judge:
    def judge(data: Data) -> Finding:
        study = Study(data[task])
        adamw, smi = OPTIMIZERS
        change = study.change(smi, adamw, final(study.data["metric"]))
        worse = change if study.data["direction"] == "min" else change.negated()
        metric = study.data["metric"].removeprefix("val_")
        return Finding(f"{change.percent()} in {metric}", lower(worse))

    return judge


def _claims() -> list[Claim]:
    runs: list[tuple[str, str, str, Judge]] = [
        ("abstract", "the model's performance is maintained: Run 5's validation loss", "-0.1%",
         _change(_VAL, -0.1)),
        ("Table 1", "Run 4 (top 75%) lowers the validation loss", "-0.2%",
         _change(_VAL, -0.2, TOP_75)),
        ("Table 1", "Run 4 lowers the training loss", "-0.7%",
         _change(final("train_loss"), -0.7, TOP_75)),
        ("Table 1", "Run 1 (alpha to 0.9) raises the training loss", "+3.1%",
         _change(final("train_loss"), 3.1, AGGRESSIVE)),
        ("5.1", "Run 4 has the lowest validation loss of the runs", "the best", _best_validation),
        ("Table 2", "the average spectral norm is smaller", "-6.8%",
         _change(weight("average_spectral_norm"), -6.8)),
        ("Table 2", "spectral norms vary less across layers", "-28.9%",
         _change(weight("spectral_norm_variance"), -28.9)),
        ("Table 2", "condition numbers are lower", "-18.1%",
         _change(weight("condition_number"), -18.1)),
        ("Table 2", "the effective rank ratio is lower", "-4.2%",
         _change(weight("effective_rank_ratio"), -4.2)),
        ("Table 3", "attention weights are sparser", "+34.8%",
         _change(activation("attention_weights"), 34.8)),
        ("Table 3", "feed-forward activations are sparser", "+26.8%",
         _change(activation("feed_forward_hidden"), 26.8)),
        ("Table 3", "layer norm outputs are sparser", "+33.3%",
         _change(activation("layer_norm_outputs"), 33.3)),
        ("Table 3", "activations are sparser overall", "+33.3%",
         _change(activation("overall_average"), 33.3)),
        ("Table 4", "the magnitudes of weights vary less", "-8.8%",
         _change(weight("parameter_magnitude_variance"), -8.8)),
        ("Table 4", "the kurtosis of weights is lower", "-12.5%",
         _change(weight("kurtosis"), -12.5)),
        ("Table 4", "the effective parameter ratio is lower", "-6.4%",
         _change(weight("effective_parameter_ratio"), -6.4)),
        ("Table 7", "Run 4 needs fewer iterations to a training loss", "-8.0%",
         _iterations("training", 0, -8.0)),
        ("Table 7", "Run 4 needs fewer iterations to a validation loss", "-6.8%",
         _iterations("evals", 1, -6.8)),
        ("Table 7", "Run 5's late training loss varies less", "-43.5%",
         _change(late_variance, -43.5)),
        ("Table 7", "Run 5's training curve is smoother", "“very high” against “moderate”",
         _smoother(roughness, COSINE)),
        ("5.4", "early training is smoother with SMI (Run 5)", "no figure",
         _smoother(early_roughness, COSINE)),
        ("5.5", "a cosine alpha (Run 5) makes the late loss vary less than a linear one (Run 4)",
         "-13.3%", _change(late_variance, -13.3, COSINE, TOP_75)),
        ("Table 9", "keeping 75% (Run 4) beats keeping 50% (Run 3) in validation loss", "-0.14%",
         _change(_VAL, -0.14, TOP_75, HIGHER_EMA)),
    ]  # fmt: skip
    timed: list[tuple[str, str, str, str, Judge]] = [
        ("Table 1", "Run 5's model infers faster", "+15.0%", "inference", faster),
        ("5.1", "every SMI run's model infers faster", "+12.0% to +15.0%", "inference", all_faster),
        ("Table 1", "SMI lengthens the training (up to +6.75% counts as that)",
         "+4.5%, at 16,384 tokens a step", "overhead", overhead),
        ("(18)", "the time added grows as gamma log P (to base e)", "gamma ≈ 0.05", "overhead",
         scaling),
        ("3.5.2", "SMI about doubles the memory of the optimizer's state", "+100%", "overhead",
         doubled),
        ("5.7", "SMI stores one more tensor a parameter", "1", "overhead", one_tensor),
        ("5.3.2", "SMI can be combined with Lion, Sophia and SAM", "no figure", "optimizers",
         combined),
        ("5.3.1", "Lion halves the memory of AdamW's state", "-50%", "optimizers", lion_memory),
        ("5.3.1", "Sophia takes two to three times as long", "2 to 3", "optimizers",
         _time("Sophia", 2, 3)),
        ("5.3.1", "SAM takes half as long again, to twice as long", "1.5 to 2", "optimizers",
         _time("SAM", 1.5, 2)),
        ("3.6.1", "q = 0.25 does best with transformers", "recommended", "sensitivity",
         _best_value("Frequency threshold (q)")),
        ("3.6.2", "β = 0.99 does best with AdamW", "recommended", "sensitivity",
         _best_value("EMA decay (β)")),
        ("3.6.3", "a cosine alpha beats a linear or constant one", "recommended", "sensitivity",
         _best_value("Alpha schedule")),
        ("Table 10", "alpha from 0.1 to 0.5 is the best range", "“optimal”", "sensitivity",
         _best_value("Alpha range")),
        ("6.2", "the schedule of alpha is the most sensitive setting", "“high”", "sensitivity",
         most_sensitive),
    ]  # fmt: skip
    claims = [
        Claim(where, text, theirs.replace("-", MINUS), "runs", judge)
        for where, text, theirs, judge in runs
    ]
    claims += [
        Claim(where, text, theirs.replace("-", MINUS), part, judge)
        for where, text, theirs, part, judge in timed
    ]
    claims += [
        Claim("7.3.4", f"SMI helps with {words}", "“potential”", "domains", _domain(task))
        for task, words in DOMAINS.items()
    ]
    return claims


CLAIMS: Sequence[Claim] = _claims()
