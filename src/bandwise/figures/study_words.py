"""The words and numbers that a study's table, figures and page share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bandwise.figures.words import DASH, TIMES, number, plural
from bandwise.study.results import Comparison, Results, Run, Verdict

_SPLITS = {"val": "validation", "test": "test", "train": "training"}


def readable(key: str) -> str:
    """A stored figure's name in words: ``val_loss`` is "validation loss"."""
    split, _, rest = key.partition("_")
    words = f"{_SPLITS[split]} {rest}" if split in _SPLITS and rest else key
    return words.replace("_", " ").strip()


def goal(results: Results) -> str:
    """Whether the metric should be low or high."""
    return "lower is better" if results.direction == "min" else "higher is better"


def baseline(results: Results) -> Comparison:
    """The row that every other is compared with."""
    return results.comparisons[0]


@dataclass(frozen=True)
class Decimals:
    """Writes the metric with as many decimals everywhere as the study can tell apart."""

    places: int | None  # after the point; ``None`` writes powers of ten, for very small figures

    @classmethod
    def of(cls, results: Results) -> Decimals:
        """As many places as show the smallest spread over seeds with one or two digits."""
        rows = results.comparisons
        spreads = [row.std for row in rows if row.std is not None]
        spreads += [(row.interval[1] - row.interval[0]) / 2 for row in rows if row.interval]
        size = max((abs(row.mean) for row in rows if math.isfinite(row.mean)), default=0.0) or 1.0
        finest = min((x for x in spreads if math.isfinite(x) and x > 0), default=size / 500)
        # Seeds that happen to agree must not fill the table with digits: six at most.
        places = math.ceil(-math.log10(max(finest, size * 2e-5) / 2))
        return cls(max(places, 0) if places <= 7 else None)

    def plain(self, value: float | None, sign: str = "-") -> str:
        """The value, or a dash where there is none."""
        if value is None or not math.isfinite(value):
            return DASH
        return number(value, f"{sign},.2e" if self.places is None else f"{sign},.{self.places}f")

    def signed(self, value: float | None) -> str:
        """The value with its sign, plus too."""
        return self.plain(value, "+")

    def spread(self, row: Comparison) -> str:
        """Mean ± standard deviation, as far as the row has them."""
        mean, std = self.plain(row.mean), self.plain(row.std)
        return mean if DASH in (mean, std) else f"{mean} ± {std}"

    def cell(self, row: Comparison) -> str:
        """The spread for a table, with the number of diverged runs."""
        lost = f"{row.diverged} of {row.n} diverged" if row.diverged else DASH
        return "\n".join(part for part in (self.spread(row), lost) if part != DASH) or DASH

    def interval(self, row: Comparison) -> str:
        """``+0.003 to +0.018``, or a dash where there is none."""
        ends = [self.signed(end) for end in row.interval or (None,)]
        return DASH if DASH in ends else " to ".join(ends)


# By verdict: what follows an optimizer's name, and what follows a number of optimizers. The
# baseline's name takes the place of the braces.
VERDICTS: dict[Verdict, tuple[str, str]] = {
    "baseline": ("the baseline", ""),
    "better": ("better than {}", "better"),
    "worse": ("worse than {}", "worse"),
    "identical": ("identical to {} on every seed", "identical"),
    "all diverged": ("every seed diverged, as did {}'s", "diverged as it did"),
    "no detectable difference": (
        "no detectable difference from {}",
        "with no detectable difference",
    ),
    "one seed: cannot tell": ("one seed cannot tell whether it differs from {}", ""),
}


def sentence(results: Results, row: Comparison) -> str:
    """What the study says of one optimizer, to follow its name and a colon."""
    base, decimals = baseline(results), Decimals.of(results)
    text = f"{VERDICTS[row.verdict][0].format(base.optimizer)} (n = {row.n})"
    if row.verdict in ("identical", "all diverged"):
        return text
    metric, interval = decimals.spread(row), ""
    if row is not base:
        metric, between = decimals.signed(row.difference), decimals.interval(row)
        interval = ", no interval" if between == DASH else f", 95% t-interval {between}"
    parts = [] if metric == DASH else [f"{readable(results.metric)} {metric}{interval}"]
    whose = [(row, "")] if row is base else [(row, ""), (base, f" of {base.optimizer}")]
    parts += [
        f"{some.diverged} of {plural(some.n, 'seed')}{of} diverged"
        for some, of in whose
        if some.diverged
    ]
    return f"{text}: {'; '.join(parts)}"


def all_diverged(results: Results) -> str:
    """What to do if every run diverged; empty if one did not."""
    if not all(run.diverged for run in results.runs):
        return ""
    first = min(run.steps for run in results.runs)
    return (
        f"Every run diverged, the first by step {first:,}: its loss became inf or NaN. "
        "Look at the task's loss, or try a lower --lr."
    )


def milliseconds(seconds: float) -> str:
    """A step's time."""
    return f"{1000 * seconds:,.3g}"


def times_note(results: Results) -> str:
    """How far step times can be trusted; empty if runs were trained one at a time."""
    if results.timed_alone:
        return ""
    return (
        "The times (ms per step) are rough: runs were trained side by side, or not all in one go. "
        "With --jobs 1 they are trained one at a time."
    )


def pace(results: Results, row: Comparison) -> tuple[float, float] | None:
    """Steps and time to the baseline's final metric, as shares of the baseline's whole run.

    ``None`` if a seed never reached it. The time is only as exact as the median step times are.
    """
    whole = results.steps * baseline(results).seconds_per_step
    if row.steps_to_baseline is None or not whole > 0:
        return None
    time = row.steps_to_baseline * row.seconds_per_step
    return row.steps_to_baseline / results.steps, time / whole


def steps_to_baseline(results: Results, row: Comparison) -> str:
    """``600 (0.60×)``: steps to the baseline's final metric, and their share of all."""
    if baseline(results).diverged:
        return DASH
    if row.steps_to_baseline is None:
        return "never"
    reached = pace(results, row)
    ratio = f" ({reached[0]:.2f}{TIMES})" if reached else ""
    return f"{row.steps_to_baseline:,.0f}{ratio}"


def soon(results: Results, row: Comparison) -> str:
    """How soon the optimizer was as good as the baseline; empty if a run of either diverged."""
    base, reached = baseline(results), pace(results, row)
    if row is base or row.diverged or base.diverged:
        return ""
    target = f"{base.optimizer}'s final {readable(results.metric)}"
    if reached is None:
        return f"Not every seed reached {target}."
    steps, time = reached
    return (
        f"It reached {target} after {steps * results.steps:,.0f} of {results.steps:,} steps "
        f"({steps:.2f}{TIMES}), in {time:.2f}{TIMES} the time."
    )


def step_time(results: Results, row: Comparison) -> str:
    """A step's time, and its ratio to the baseline's."""
    words, base = milliseconds(row.seconds_per_step), baseline(results).seconds_per_step
    return f"{words} ({row.seconds_per_step / base:.2f}{TIMES})" if base > 0 else words


def p_value(row: Comparison) -> str:
    """The corrected p-value, or a dash where there is none."""
    if row.p_corrected is None:
        return DASH
    return "< 0.001" if row.p_corrected < 0.001 else number(row.p_corrected, ".3f")


def final_of(run: Run, key: str) -> str:
    """A figure that a run ended with."""
    value = run.final.get(key, math.nan)
    if math.isfinite(value):
        return number(value, ".5g")
    return "diverged" if run.diverged else DASH


def rests_on(results: Results) -> str:
    """What the verdicts rest on, in a sentence or two."""
    compared = len(results.comparisons) - 1
    if compared == 0:
        return f"{baseline(results).optimizer} ran alone: there is nothing to compare it with."
    if max(row.n for row in results.comparisons) == 1:
        return "One seed each: any difference may be chance. Run more seeds for a verdict."
    many = f", corrected for {compared} comparisons (Holm)" if compared > 1 else ""
    return (
        '"Better" and "worse" need fewer or more diverged runs than the baseline, or a paired '
        f"t-test over seeds with p < 0.05{many}. The 95% t-interval is of each comparison alone. "
        '"No detectable difference" does not mean equal.'
    )
