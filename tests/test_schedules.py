"""Schedules follow the SMI paper's formulas and are plain frozen values."""

import io
import math
import pickle
from dataclasses import FrozenInstanceError, dataclass

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import bandwise as bw
from bandwise.optim import schedules

numbers = st.floats(-1e9, 1e9)
ALL = [bw.Constant(0.3), bw.Linear(0.1, 0.5), bw.Cosine(0.1, 0.5), bw.Cyclic(0.5, -0.25, 8)]


def any_schedule():
    shapes = st.sampled_from(["cosine", "triangular", "sawtooth", "square"])
    return st.one_of(
        st.builds(bw.Constant, numbers),
        st.builds(bw.Linear, numbers, numbers),
        st.builds(bw.Cosine, numbers, numbers),
        st.builds(bw.Cyclic, numbers, numbers, st.integers(2, 1000), shapes),
    )


@pytest.mark.parametrize(
    ("schedule", "values"),  # at 0, T/4, T/2, T and beyond
    [
        (bw.Linear(0.1, 0.5), [0.1, 0.2, 0.3, 0.5, 0.5]),
        (bw.Linear(0.5, 0.1), [0.5, 0.4, 0.3, 0.1, 0.1]),
        (bw.Cosine(0.1, 0.5), [0.1, 0.1 + 0.2 * (1 - math.sqrt(0.5)), 0.3, 0.5, 0.5]),
        (bw.Constant(0.3), [0.3] * 5),
    ],
)
def test_equations_16_and_17(schedule, values):
    T = 1000
    at = [schedule(t, T) for t in (0, T // 4, T // 2, T, 7 * T + 3)]
    assert at == pytest.approx(values, rel=1e-12)


@pytest.mark.parametrize(
    ("shape", "quarters"),
    [
        ("cosine", [0.5, 0.125, -0.25, 0.125]),
        ("triangular", [0.5, 0.125, -0.25, 0.125]),
        ("sawtooth", [0.5, 0.3125, 0.125, -0.0625]),
        ("square", [0.5, 0.5, -0.25, -0.25]),
    ],
)
def test_cyclic_shapes_at_their_quarters(shape, quarters):
    schedule = bw.Cyclic(0.5, -0.25, period=8, shape=shape)
    at = [schedule(t) for t in (0, 2, 4, 6)]
    assert at == pytest.approx(quarters, abs=1e-12)
    assert [schedule(t + 3 * 8) for t in (0, 2, 4, 6)] == at


def test_cosine_and_triangular_differ_between_their_quarters():
    cosine = bw.Cyclic(1.0, 0.0, 8)(1)
    assert cosine == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert bw.Cyclic(1.0, 0.0, 8, "triangular")(1) == 0.75


def test_an_odd_square_stays_high_for_the_longer_half():
    schedule = bw.Cyclic(1.0, 0.0, period=5, shape="square")
    assert [schedule(t) for t in range(5)] == [1, 1, 1, 0, 0]


@given(numbers, numbers, st.integers(1, 10**6))
@example(0.9, 0.3, 10)
@example(1e9, 1e-9, 7)
def test_ends_are_reached_exactly(a, b, T):
    for schedule in (bw.Linear(a, b), bw.Cosine(a, b)):
        assert (schedule(0, T), schedule(T, T), schedule(T + 1, T)) == (a, b, b)
    assert bw.Cyclic(a, b, 2 * T)(0) == a
    assert bw.Cyclic(a, b, 2 * T)(T) == b


@given(any_schedule(), st.integers(0, 10**6), st.integers(1, 10**5))
def test_bounds_hold_every_value(schedule, step, total):
    low, high = schedule.bounds
    assert low <= schedule(step, total) <= high


@given(any_schedule())
def test_bounds_are_values(schedule):
    T = 1000
    values = [schedule(t, T) for t in range(2 * T)]
    low, high = schedule.bounds
    # A cycle of odd period and a sawtooth never take their lowest value.
    if not isinstance(schedule, bw.Cyclic):
        assert (min(values), max(values)) == (low, high)
    else:
        assert schedule.high in values


@given(any_schedule())
def test_repr_evaluates_to_an_equal_schedule(schedule):
    assert eval(repr(schedule), vars(bw)) == schedule
    assert pickle.loads(pickle.dumps(schedule)) == schedule


def test_compared_and_hashed_by_value():
    assert bw.Linear(0.1, 0.5) == bw.Linear(0.1, 0.5)
    assert bw.Linear(0.1, 0.5) != bw.Cosine(0.1, 0.5)
    assert bw.Cyclic(1, 0, 4) != bw.Cyclic(1, 0, 4, "square")
    assert len({bw.Cosine(0.1, 0.5), bw.Cosine(0.1, 0.5), bw.Linear(0.1, 0.5)}) == 2


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_frozen(schedule):
    field = next(iter(vars(schedule)))
    with pytest.raises(FrozenInstanceError):
        setattr(schedule, field, 1.0)


@pytest.mark.parametrize("schedule", [bw.Linear(0.1, 0.5), bw.Cosine(0.1, 0.5)], ids=str)
def test_a_ramp_needs_total_steps(schedule):
    with pytest.raises(ValueError, match=r"(Linear|Cosine)\(start=0.1.*needs total_steps"):
        schedule(1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bw.Constant("1"), TypeError, r"Constant's value must be a number, got '1'"),
        (lambda: bw.Constant(True), TypeError, r"Constant's value must be a number, got True"),
        (lambda: bw.Linear(math.nan, 1), ValueError, r"Linear's start must be finite, got nan"),
        (lambda: bw.Linear(0, None), TypeError, r"Linear's end must be a number, got None"),
        (lambda: bw.Cosine(0, math.inf), ValueError, r"Cosine's end must be finite, got inf"),
        (lambda: bw.Cyclic([], 0, 4), TypeError, r"Cyclic's high must be a number, got .."),
        (lambda: bw.Cyclic(1, "0", 4), TypeError, r"Cyclic's low must be a number, got '0'"),
        (lambda: bw.Cyclic(1, 0, 1), ValueError, r"Cyclic's period must be at least 2, got 1"),
        (lambda: bw.Cyclic(1, 0, 2.0), TypeError, r"Cyclic's period must be an int, got 2.0"),
        (
            lambda: bw.Cyclic(1, 0, 4, "sine"),
            ValueError,
            r"Cyclic's shape must be one of cosine, triangular, sawtooth, square, got 'sine'",
        ),
    ],
)
def test_errors_name_argument_value_and_what_is_right(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_schedule_of_the_user_s_own_is_saved_and_loaded():
    @dataclass(frozen=True)
    class Drop(schedules.Schedule):
        at: int

        def __call__(self, step, total_steps=None):
            return 0.5 if step < self.at else 0.0

        @property
        def bounds(self):
            return 0.0, 0.5

    saver, loader = (bw.NSF([torch.zeros(2)], p=p) for p in (Drop(3), 0.5))
    file = io.BytesIO()
    torch.save(saver.state_dict(), file)
    loader.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert loader.param_groups[0]["p"] == Drop(3)


def test_two_schedules_cannot_have_one_name():
    with pytest.raises(
        TypeError, match="bandwise has a schedule named Linear: give yours another name"
    ):

        class Linear(schedules.Schedule):
            pass

    assert schedules.SCHEDULES["Linear"] is bw.Linear


def test_check_of_an_argument():
    schedules.check("alpha", bw.Linear(0.0, 1.0), 10, low=0, high=1)
    schedules.check("alpha", 0.5, None, low=0, high=1)
    with pytest.raises(ValueError, match=r"alpha must stay within \[0, 1\], got Cyclic\(high=0.5"):
        schedules.check("alpha", bw.Cyclic(0.5, -0.1, 4), None, low=0, high=1)
    with pytest.raises(ValueError, match=r"alpha must be at most 1, got 1.5"):
        schedules.check("alpha", 1.5, None, low=0, high=1)
    with pytest.raises(ValueError, match="needs total_steps"):
        schedules.check("alpha", bw.Linear(0.0, 1.0), None)
    with pytest.raises(ValueError, match="total_steps must be at least 1, got 0"):
        schedules.check("alpha", 0.5, 0)
    with pytest.raises(TypeError, match=r"total_steps must be an int, got 10.0"):
        schedules.check("alpha", 0.5, 10.0)
