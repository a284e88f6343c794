"""The stopwatch. It times contenders in turns, so that a noisy machine affects all of them."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from benchmarks.results import Row

Clock = Callable[[], float]


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Contender:
    """A function to time.

    Attributes:
        name: unique in its case.
        call: the timed function.
        prepare: runs before every call and is not timed.
        against: the contender by whose time in the same round this one's is divided.
        moves: the least number of bytes that a call must move.
        calls: the number of calls in a round. Their mean counts. It is above 1 if only some calls
            do all the work.
    """

    name: str
    call: Callable[[], object]
    prepare: Callable[[], object] = _nothing
    against: str | None = None
    moves: int | None = None
    calls: int = 1

    def time(self, clock: Clock) -> float:
        """Seconds of a call."""
        total = 0.0
        for _ in range(self.calls):
            self.prepare()
            start = clock()
            self.call()
            total += clock() - start
        return total / self.calls


@dataclass(frozen=True)
class Rounds:
    """The number of rounds of a case.

    Attributes:
        warmup: rounds at the start that do not count.
        least: the smallest number of rounds.
        most: the largest number of rounds.
        seconds: after ``least`` rounds, no round starts later than this.
    """

    warmup: int
    least: int
    most: int
    seconds: float


def clock_of(device: torch.device) -> Clock:
    """A clock in seconds that waits for the device, so that a call's time includes its work.

    On a GPU the time of a short call therefore includes its launches.
    """
    if device.type != "cuda":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Set torch's number of threads on the CPU, and restore it afterwards. ``None`` keeps it."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def interleaved(
    contenders: Sequence[Contender],
    rounds: Rounds,
    clock: Clock,
    *,
    renew: Callable[[], object] = _nothing,
    each_round: Callable[[], object] = _nothing,
    seed: int = 0,
) -> tuple[list[Row], list[list[str]]]:
    """Time every contender once a round, in a new random order each round.

    Args:
        contenders: the contenders.
        rounds: the number of rounds.
        clock: a monotonic clock, in seconds.
        renew: runs at the start of every round.
        each_round: runs at the end of every round.
        seed: the seed of the orders.

    Returns:
        A row for each contender, with its time in every round, and the order of every round.
    """
    shuffler = random.Random(seed)
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    orders: list[list[str]] = []
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds.warmup):
            renew()
            for contender in contenders:
                contender.time(clock)
            each_round()
        start = clock()
        while len(orders) < rounds.least or (
            len(orders) < rounds.most and clock() - start < rounds.seconds
        ):
            renew()
            order = shuffler.sample(contenders, len(contenders))
            for contender in order:
                seconds[contender.name].append(contender.time(clock))
            orders.append([contender.name for contender in order])
            each_round()
    finally:
        if collecting:
            gc.enable()
    rows = [Row(c.name, seconds[c.name], c.against, c.moves) for c in contenders]
    return rows, orders
