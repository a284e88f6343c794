"""The stopwatch: contenders are timed in turns, so that a noisy machine is noisy to all."""

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
    """Something to be timed.

    Attributes:
        name: unique in its case.
        call: what is timed.
        prepare: runs before every call and is not timed.
        against: the contender whose time in the same round this one's is divided by.
        moves: bytes that a call must move at the least.
        calls: how many calls make up a round, whose mean counts. There is more than one where only
            some of the calls do all the work.
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
    """How long a case is measured.

    Attributes:
        warmup: rounds at the start that do not count.
        least: the least number of rounds.
        most: the largest number of rounds.
        seconds: no round starts after so many, if there are ``least``.
    """

    warmup: int
    least: int
    most: int
    seconds: float


def clock_of(device: torch.device) -> Clock:
    """A clock in seconds that waits for the device, so that a call's work is inside its time.

    On a GPU a short call's time therefore includes its launches.
    """
    if device.type != "cuda":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Let torch use so many threads on the CPU, or as many as it does if ``None``; then undo it."""
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
    """Time every contender once a round, in an order that is drawn anew each round.

    Args:
        contenders: what to time.
        rounds: how many rounds.
        clock: a monotonic clock, in seconds.
        renew: runs at the start of every round.
        each_round: runs at the end of every round.
        seed: of the orders.

    Returns:
        A row a contender, with its time in every round, and every round's order.
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
