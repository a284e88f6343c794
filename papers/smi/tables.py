"""The tables of the SMI paper with our figures."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bandwise.figures.words import DASH, number, plural
from papers.paper import Data, Table
from papers.smi.claims import best_text, sensitivity_percent
from papers.smi.measures import (
    activation,
    added,
    best_val,
    iterations_to,
    late_variance,
    roughness,
    thresholds,
    weight,
)
from papers.smi.parts import domains
from papers.smi.parts.overhead import ALONE, WITHIN_SMI
from papers.smi.parts.runs import (
    ADAMW,
    AGGRESSIVE,
    CONSERVATIVE,
    COSINE,
    HIGHER_EMA,
    RUNS,
    TOP_75,
)
from papers.smi.parts.sensitivity import BEST, VARIED
from papers.stored import Measure, Study, final
from papers.timing import median_interval
from papers.verdicts import percent

_VAL = final("val_loss")
_LABELS = {text: label for label, text in RUNS.items()}


def tables(parts: Mapping[str, Data]) -> list[Table]:
    """The tables for which the stored parts have the data."""
    made: list[Table] = []
    if "runs" in parts:
        made += _of_runs(parts["runs"], parts.get("inference"), parts.get("optimizers"))
    if "optimizers" in parts:
        made.append(_table_5(parts["optimizers"]))
    if "overhead" in parts:
        made += _table_6(parts["overhead"])
    if "sensitivity" in parts:
        made.append(_table_10(parts["sensitivity"]))
    if "domains" in parts:
        made.append(_domains(parts["domains"]))
    return made


def _of_runs(data: Data, inference: Data | None, optimizers: Data | None) -> list[Table]:
    study, (train, val) = Study(data["study"]), thresholds(data)
    n = len(data["study"]["seeds"])
    over = f"Means ± SEM over {n} seeds, and the paired change from the baseline."
    measures: dict[str, Measure] = {
        "train loss": final("train_loss"),
        "best val loss": best_val,
        "last val loss": _VAL,
        f"iterations to train loss < {train:.4g}": iterations_to("training", train),
        f"iterations to val loss < {val:.4g}": iterations_to("evals", val),
        "late variance": late_variance,
        "roughness": roughness,
    }
    speeds = {} if inference is None else {
        text: f"{statistics.fmean(values):.4g}"
        for text, values in inference["tokens_per_second"].items()
    }  # fmt: skip

    def train_time(text: str) -> str:
        """A run's steps times a step's time, which no setting of SMI's changes."""
        if optimizers is None:
            return DASH
        alone, within = (
            statistics.median(optimizers["steps"][label]["seconds"])
            for label in ("AdamW", "SMI+AdamW")
        )
        seconds = alone if text == ADAMW else within
        more = "" if text == ADAMW else f" ({_percent(100 * (within / alone - 1))})"
        return f"{data['study']['steps'] * seconds:.3g}{more}"

    def row(text: str, names: Sequence[str]) -> list[str]:
        return [_cell(study, text, measures[name]) for name in names]

    one, seven = list(measures)[:3], list(measures)[3:]
    eight, nine = (AGGRESSIVE, CONSERVATIVE, COSINE), (HIGHER_EMA, TOP_75)
    both = [*measures]
    return [
        Table(
            "Table 1: Runs 0 to 5",
            f"{over} Runs 1 to 3 have q = 0.5: the paper writes 50% retention and 50% magnitude "
            "threshold. Runs 4 and 5 have q = 0.25: 75% retention, 75% magnitude threshold. Train "
            "loss is the mean of the last logged rows. Tokens a second are the "
            "medians of the part `inference`. These runs shared the machine with one another, so "
            "the train time is computed: the number of steps times the time of a step in Table 5, "
            "which was taken in turns at 1,024 tokens a step (16,384 in the paper). It is the same "
            "for all of SMI's settings.",
            ("method", *one, "tokens a second", "train time, s"),
            [
                [_LABELS[text], *row(text, one), speeds.get(text, DASH), train_time(text)]
                for text in RUNS.values()
            ],
        ),
        _comparison(
            study,
            "Table 2: spectral properties of weights",
            "Definitions: `bandwise.lens.quantities.weights`. Spectral norm and condition number "
            "are standard terms. For the effective rank the paper gives no formula, so its values "
            "are no reference for ours.",
            {
                "average spectral norm": weight("average_spectral_norm"),
                "spectral norm variance": weight("spectral_norm_variance"),
                "condition number": weight("condition_number"),
                "median condition number": weight("median_condition_number"),
                "effective rank ratio": weight("effective_rank_ratio"),
            },
        ),
        _comparison(
            study,
            "Table 3: activation sparsity",
            "The share of values below a tenth of their layer's root mean square "
            "(`bandwise.lens.quantities.activations`; the paper has no definition); also at a "
            "hundredth and a fifth of it.",
            {
                f"{kind.replace('_', ' ')}{words}": activation(kind + suffix)
                for kind in (
                    "attention_weights",
                    "feed_forward_hidden",
                    "layer_norm_outputs",
                    "overall_average",
                )
                for suffix, words in (("", ""), ("_at_0.01", ", at 0.01"), ("_at_0.2", ", at 0.2"))
            },
        ),
        _comparison(
            study,
            "Table 4: distribution of weights",
            "Definitions: `bandwise.lens.quantities.weights`. “Weight decay impact” is left out: "
            "the paper does not say what it is.",
            {
                "parameter magnitude variance": weight("parameter_magnitude_variance"),
                "kurtosis": weight("kurtosis"),
                "effective parameter ratio": weight("effective_parameter_ratio"),
            },
        ),
        Table(
            "Table 7: training dynamics",
            f"{over} Iterations: until the training loss (mean of the last eight logged rows) or "
            "the validation loss (between evaluations a straight line) is below the threshold; "
            + (
                "the thresholds are the paper's. "
                if data["thresholds"] is not None
                else "the thresholds are the baseline's mean losses at 25% and 44% of its steps, "
                "where the paper's baseline reached its 1.0 and 1.5. "
            )
            + "Late variance: of the logged training losses of the last fifth. Roughness: mean "
            "distance between logged training losses that follow one another.",
            ("method", *seven),
            [[_LABELS[text], *row(text, seven)] for text in RUNS.values()],
        ),
        _columns("Table 8: schedules of alpha", f"{over}", eight, both, row),
        _columns("Table 9: retention of 50% and 75%", f"{over}", nine, both, row),
    ]


def _columns(title: str, note: str, texts: Sequence[str], names: Sequence[str], row: Any) -> Table:
    cells = {text: row(text, names) for text in texts}
    return Table(
        title,
        note,
        ("metric", *(_LABELS[text] for text in texts)),
        [[name, *(cells[text][i] for text in texts)] for i, name in enumerate(names)],
    )


def _comparison(study: Study, title: str, note: str, measures: Mapping[str, Measure]) -> Table:
    """AdamW beside SMI, which is Run 5."""
    return Table(
        title,
        f"SMI is Run 5. {note}",
        ("metric", "AdamW", "SMI", "change, paired by seed"),
        [
            [
                name,
                _plain(study.sample(ADAMW, measure).mean),
                _plain(study.sample(COSINE, measure).mean),
                percent(study.change(COSINE, ADAMW, measure)),
            ]
            for name, measure in measures.items()
        ],
    )


def _table_5(data: Data) -> Table:
    study = Study(data["study"])
    base_seconds = data["steps"]["AdamW"]["seconds"]
    rows = []
    for label, texts in data["texts"].items():
        factor, text = best_text(study, texts)
        means = {f: study.sample(t, _VAL).mean for f, t in texts.items()}
        step = data["steps"][label]
        pairs = zip(step["seconds"], base_seconds, strict=True)
        ratio = statistics.median(one / other for one, other in pairs)
        _, reference = best_text(study, data["texts"]["AdamW"])
        rows.append(
            [
                label,
                _mean_sem(study, text, _VAL),
                f"x {float(factor):g}",
                DASH if label == "AdamW" else percent(study.change(text, reference, _VAL)),
                *(_percent(_above(means[f], means[factor])) for f in ("0.5", "1.0", "2.0")),
                f"{step['state_bytes'] / step['parameters']:.3g}",
                f"{ratio:.2f}",
            ]
        )
    return Table(
        "Table 5: modern optimizers, as measured",
        f"{study.data['steps']} steps, {len(study.data['seeds'])} seeds. Each optimizer at the "
        "best of three learning rates: its usual part of AdamW's (Lion 1/10, Sophia 1/2, rest 1) "
        "times a half, one and two. The three columns after that show how much larger its loss is "
        f"at each. The time of a step is the median over rounds in turns{_on_threads(data)}. "
        "Sophia's Hessian is estimated from differences of gradients (`papers.smi.sam_sophia`), "
        "since attention kernels have no second derivative.",
        ("optimizer", "val loss ± SEM", "best lr", "change from AdamW", "lr x 0.5", "lr x 1",
         "lr x 2", "state, bytes a parameter", "step time over AdamW's"),
        rows,
    )  # fmt: skip


def _above(mean: float | None, least: float | None) -> float | None:
    return None if mean is None or least is None else 100 * (mean / least - 1)


def _on_threads(data: Data) -> str:
    """The number of threads of a timing. Timings from before it was stored have none."""
    return f", on {plural(data['threads'], 'thread')}" if "threads" in data else ""


def _table_6(data: Data) -> list[Table]:
    measured = []
    for size in data["sizes"]:
        more = added(size)
        low, high = median_interval(more)
        extra = (size["state_bytes"][WITHIN_SMI] - size["state_bytes"][ALONE]) / size["parameters"]
        measured.append(
            [
                f"{size['parameters']:,}",
                f"{1000 * statistics.median(size['seconds'][ALONE]):.3g}",
                _percent(statistics.median(more)),
                f"{_percent(low)} to {_percent(high)}",
                f"{extra:.2f}",
                _percent(100 * extra / 16),
            ]
        )
    return [
        Table(
            "Table 6, measured: what SMI adds to a training step",
            f"A GPT's whole step, {data['batch']} windows of {data['sizes'][0]['context']} "
            f"characters, AdamW (foreach) alone and within SMI in turns{_on_threads(data)}. Memory "
            "is counted: the history beside weights, gradients and AdamW's state (16 bytes a "
            "parameter), without activations.",
            ("parameters", "AdamW's step, ms", "added, median", "95% interval",
             "history, bytes a parameter", "of 16 bytes"),
            measured,
        ),
    ]  # fmt: skip


def _table_10(data: Data) -> Table:
    study = Study(data)
    rows = [["Run 5's settings", DASH, _mean_sem(study, BEST, _VAL), DASH, DASH]]
    rows += [
        [
            name,
            value,
            _mean_sem(study, text, _VAL),
            percent(study.change(text, BEST, _VAL)),
            sensitivity_percent(study, name),
        ]
        for name, varied in VARIED.items()
        for value, text in varied.items()
    ]
    return Table(
        "Table 10: sensitivity, as measured",
        f"{data['steps']} steps, {len(data['seeds'])} seeds, AdamW "
        f"{_mean_sem(study, ADAMW, _VAL)} (SEM). One setting at a time is changed from Run 5's. A "
        "setting's sensitivity is the root mean square, over its values and the seeds, of the "
        "change in loss. Noise adds the same to each.",
        ("setting", "value", "val loss ± SEM", "change from Run 5's", "sensitivity"),
        rows,
    )


def _domains(data: Data) -> Table:
    rows = []
    for task, words in domains.DOMAINS.items():
        study = Study(data[task])
        measure = final(study.data["metric"])
        rows.append(
            [
                f"{task}: {words}",
                study.data["metric"].removeprefix("val_"),
                _mean_sem(study, domains.ADAMW, measure),
                _mean_sem(study, domains.SMI, measure),
                percent(study.change(domains.SMI, domains.ADAMW, measure)),
            ]
        )
    return Table(
        "Beyond the paper's task (6.1.1, 7.3.4)",
        "Means ± SEM on the validation split; `min_ndim=1`, the other settings Run 5's. A reward "
        "is to be large, the rest small.",
        ("task", "metric", "AdamW", "SMI around AdamW", "change, paired by seed"),
        rows,
    )


def _cell(study: Study, text: str, measure: Measure) -> str:
    mean = _mean_sem(study, text, measure)
    if text == ADAMW:
        return mean
    return f"{mean} ({_percent(study.change(text, ADAMW, measure).mean)})"


def _mean_sem(study: Study, text: str, measure: Measure) -> str:
    """Mean ± standard error of the mean (SEM)."""
    found = study.sample(text, measure)
    sem = None if found.std is None else found.std / math.sqrt(found.n)
    return f"{_plain(found.mean)} ± {_plain(sem, '.2g')}"


def _plain(value: float | None, form: str = ".4g") -> str:
    return DASH if value is None else number(value, form)


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{number(value, '+.2f')}%"
