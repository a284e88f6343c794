"""Verdicts are right on known differences and seldom wrong without a difference."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from bandwise.study.paired import Sample, compare_runs, holm, mean_interval, p_value, steps_to
from bandwise.study.results import Run


def runs(name, values, curves=None, diverged=()):
    return [
        Run(
            optimizer=name,
            seed=seed,
            diverged=seed in diverged,
            steps=100,
            final={"val_loss": value},
            seconds_per_step=0.01,
            evals=curves[seed] if curves else [{"step": 100, "val_loss": value}],
            training=[],
            config={},
            folder="",
        )
        for seed, value in enumerate(values)
    ]


def verdict(base, other, direction="min", **kwargs):
    comparisons = compare_runs(
        [runs("base", base), runs("other", other, **kwargs)], "val_loss", direction
    )
    assert comparisons[0].verdict == "baseline"
    return comparisons[1]


def test_a_clear_difference_is_told():
    found = verdict([1.0, 1.1, 1.2], [0.9, 1.01, 1.1])
    assert found.verdict == "better"
    assert found.difference == pytest.approx(-0.29 / 3)
    assert found.interval[0] <= found.difference <= found.interval[1] < 0
    assert verdict([1.0, 1.1, 1.2], [0.9, 1.01, 1.1], "max").verdict == "worse"


def test_three_seeds_on_one_side_are_not_enough():
    """A bootstrap interval excludes zero here. The t-interval does not."""
    found = verdict([1.0, 1.1, 1.2], [0.99, 1.05, 1.0])
    assert found.interval[0] < 0 < found.interval[1]
    assert found.verdict == "no detectable difference"
    assert found.why.startswith("The interval includes zero (paired t-test: corrected p = 0.2")


def test_pairing_sees_through_the_spread_of_seeds():
    found = verdict([1.0, 2.0, 3.0], [1.1, 2.11, 3.1])
    assert found.verdict == "worse"


def test_one_seed_cannot_tell():
    found = verdict([1.0], [0.5])
    assert found.verdict == "one seed: cannot tell"
    assert found.interval is found.p_raw is found.p_corrected is found.std is None


@pytest.mark.parametrize("values", [[1.0, 1.1], [1.0]])
def test_the_same_run_twice_is_identical(values):
    found = verdict(values, values)
    assert found.verdict == "identical"
    assert found.why == "Identical to base on every seed: did the setting do anything?"


def test_the_same_last_figure_by_another_way_is_no_difference():
    """Counts of errors are often equal."""
    ways = [[{"step": 50, "val_loss": start}, {"step": 100, "val_loss": 1.0}] for start in (2.0, 3)]
    found = verdict([1.0, 1.0], [1.0, 1.0], curves=ways)
    assert (found.verdict, found.interval, found.p_corrected) == (
        "no detectable difference", (0.0, 0.0), 1.0,
    )  # fmt: skip


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_one_example_more_with_every_seed_is_no_certainty(seeds):
    """Counts of errors often differ by the same count. The t-test would then give p = 0."""
    base = [0.023, 0.031, 0.027, 0.026, 0.029][:seeds]
    other = [0.024, 0.032, 0.028, 0.027, 0.03][:seeds]
    found = verdict(base, other)
    assert found.p_raw == found.p_corrected == 2 ** (1 - seeds)
    assert found.verdict == "no detectable difference"
    assert "by chance" in found.why


def test_the_same_difference_with_many_seeds_is_told():
    base = [i / 10 for i in range(8)]
    found = verdict(base, [b + 0.25 for b in base])
    assert (found.verdict, found.p_corrected) == ("worse", 2**-7)


def test_counted_errors_of_equal_methods_are_seldom_told_apart():
    generator = np.random.default_rng(0)
    trials, tests = 4000, 7
    found = 0
    for _ in range(trials):
        differences = generator.normal(size=3).round() / 1000
        found += tests * p_value(differences) < 0.05
    assert found / trials < 0.05 / tests + 3 * math.sqrt(0.05 / tests / trials)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_more_diverged_runs_are_worse_and_fewer_are_better(n):
    """The verdict is monotone in the count. One of five is never judged worse than four of five."""
    for ours in range(n + 1):
        for theirs in range(n + 1):
            if ours == theirs == 0:
                continue
            groups = [
                runs(name, [math.nan] * lost + [end] * (n - lost), diverged=range(lost))
                for name, lost, end in (("base", theirs, 1.0), ("other", ours, 1.1))
            ]
            found = compare_runs(groups, "val_loss", "min")[1]
            assert found.verdict == (
                "worse"
                if ours > theirs
                else "better"
                if ours < theirs
                else "all diverged"
                if ours == n
                else "no detectable difference"
            )
            assert found.why.endswith(f"with {ours} of {n} seeds, the baseline's with {theirs}.")
            assert found.difference is found.interval is found.p_corrected is None


def test_more_comparisons_ask_for_more():
    base, other = [1.0, 1.1, 1.2], [0.9, 0.97, 1.03]
    groups = [runs("base", base), *(runs(f"other{i}", other) for i in range(5))]
    several = compare_runs(groups, "val_loss", "min")[1]
    alone = compare_runs(groups[:2], "val_loss", "min")[1]
    assert several.p_raw == alone.p_raw == alone.p_corrected
    assert several.p_corrected == pytest.approx(5 * alone.p_raw)
    assert (alone.verdict, several.verdict) == ("better", "no detectable difference")
    assert several.interval[1] < 0
    assert "by chance" in several.why


def test_holms_correction_is_that_of_its_definition():
    assert holm([]) == []
    assert holm([0.04]) == [0.04]
    assert holm([0.03, 0.01, 0.04]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.01]) == pytest.approx([0.9, 0.02])
    assert holm([0.9, 0.8, 0.7]) == [1, 1, 1]
    # An optimizer that diverged has no test, but the reader saw it as a candidate.
    assert holm([None, 0.01]) == pytest.approx([None, 0.02])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holms_correction_lies_between_none_and_bonferronis(values):
    found = holm(values)
    for p, least in zip(found, values, strict=True):
        assert least <= p <= min(1, len(values) * least)
    order = np.argsort(values, kind="stable")
    assert np.all(np.diff(np.array(found)[order]) >= 0)


def test_methods_that_do_not_differ_are_seldom_told_apart():
    """With three arms that do not differ, one study in twenty calls any of them better or worse."""
    generator = np.random.default_rng(0)
    trials, false = 1000, 0
    for _ in range(trials):
        arms = [runs(str(arm), 1 + 0.01 * generator.normal(size=3)) for arm in range(4)]
        rows = compare_runs(arms, "val_loss", "min")[1:]
        false += any(row.verdict in ("better", "worse") for row in rows)
    assert false / trials < 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_the_interval_holds_the_mean_in_95_of_100_studies(n):
    """The percentile bootstrap held it in 75 of 100 with three seeds."""
    generator = np.random.default_rng(0)
    trials = 2000
    intervals = [mean_interval(generator.normal(size=n)) for _ in range(trials)]
    held = sum(low < 0 < high for low, high in intervals) / trials
    assert abs(held - 0.95) < 3 * math.sqrt(0.05 * 0.95 / trials)


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8))
def test_the_interval_excludes_zero_just_if_the_raw_p_value_is_below_5_percent(values):
    low, high = mean_interval(values)
    assert (low + high) / 2 == pytest.approx(np.mean(values), abs=1e-9)
    if np.ptp(values) > 1e-6:
        assert (low, high) == pytest.approx(
            tuple(scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)), abs=1e-9
        )
        if min(abs(low), abs(high)) > 1e-9:
            assert (low > 0 or high < 0) == (p_value(values) < 0.05)


def test_steps_to_the_baselines_last_figure():
    def curve(*values):
        return [{"step": 10 * (i + 1), "val_loss": v} for i, v in enumerate(values)]

    base = runs("base", [1.0, 1.0], [curve(3, 2, 1.0), curve(3, 2, 1.0)])
    quick = runs("quick", [0.5, 0.5], [curve(3, 0.9, 0.5), curve(0.9, 0.7, 0.5)])
    never = runs("never", [0.5, 1.5], [curve(3, 0.9, 0.5), curve(3, 2, 1.5)])
    rows = compare_runs([base, quick, never], "val_loss", "min")
    assert [row.steps_to_baseline for row in rows] == [30, 15, None]
    lost = runs("lost", [math.inf, 1.0], [curve(3, math.inf), curve(2, 1.0)], diverged={0})
    assert compare_runs([lost, quick], "val_loss", "min")[1].steps_to_baseline is None


def test_a_missing_figure_and_a_diverged_run_are_told_apart():
    targets = Sample((1.0, 1.0, None))
    curve = [(0, 3.0), (10, 1.0)]
    found = steps_to(targets, [curve, curve[:1], curve], "min")
    assert found.values == (10.0, None, None)
    assert steps_to(targets, [curve, curve[:1], curve], "max").values == (0.0, 0.0, None)
    marked = Sample(found.values, diverged=(False, False, True))
    assert marked.missing == (False, True, False)
    assert marked.bounded(20).values == (10, 20, None)
    assert not marked.complete
    assert marked.mean is marked.std is marked.interval is marked.p_raw is None
    assert not marked.above(-100)
    assert not marked.below(100)


def test_a_median_counts_what_is_missing_as_late():
    assert Sample((1.0, None, 2.0)).median == 2
    assert Sample((1.0, None, None)).median is None
    assert Sample((1.0, None)).median is None
    assert Sample(()).median is None


def test_differences_changes_and_ratios_are_taken_seed_by_seed():
    ours, theirs = Sample((1.0, 8.0, 3.0)), Sample((2.0, 4.0, None), (False, False, True))
    assert ours.minus(theirs).values == (-1, 4, None)
    assert ours.minus(theirs).baseline_diverged == (False, False, True)
    assert ours.ratio_to(theirs).values == (0.5, 2, None)
    assert ours.change_from(theirs).values == (None, None, None)  # the baseline has no mean
    assert theirs.change_from(ours).values == (25, -100, None)
    assert Sample((0.0,)).ratio_to(Sample((1.0,))).values == (None,)


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_no_infinity_stands_for_a_missing_figure(value):
    with pytest.raises(ValueError, match="values must be finite or None"):
        Sample((1.0, value))
    with pytest.raises(ValueError, match="diverged must have 2 entries, got 1"):
        Sample((1.0, 2.0), (True,))
