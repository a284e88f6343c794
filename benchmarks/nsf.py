"""The cost of NSF's step, beside Adam's in several libraries and the memory traffic it needs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.optim import AdamW, Optimizer

from bandwise import NSF, Cyclic
from benchmarks.plan import FLOAT_BYTES, Extent, Lineup, Plan, Workload, count, matrices
from benchmarks.timing import Contender
from benchmarks.training import MakeOptimizer, training

DEFAULT, TORCH = "NSF, p = 0.7", "AdamW, fused"
# Floats that must be read or written per parameter. Adam reads gradient, parameter and moments, and
# writes the last three. NSF needs the length of its update before it applies it: one pass reads
# gradient and moments and writes moments, another reads moments and parameter and writes parameter.
# At p = 1/2 the update is Adam's, and one pass is enough.
_ADAM_STREAMS, _NSF_STREAMS = 7, 9
# Optimizers of other libraries, if they are installed: module, class, options.
_OTHERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "PAdam (pytorch-optimizer)": ("pytorch_optimizer", "PAdam", {"partial": 0.35}),
    "AdamW (heavyball)": ("heavyball", "AdamW", {}),
}
_FLOOR_NOTE = (
    "7 streams, 9 streams, the floors: bytes that must move over measured bandwidth, which is the "
    "time of negating in place half as many bytes. One pass of Adam moves 7 floats of 4 bytes a "
    "parameter, the two passes of NSF move 9. GB/s counts these bytes alone."
)


def plans(extent: Extent, device: torch.device) -> Iterator[Plan]:
    """All cases of NSF."""
    shapes = matrices(extent.gpt)
    yield Plan(
        f"NSF.step on the {len(shapes)} matrices of a GPT",
        count(shapes),
        partial(_steps, shapes, device, everyone=True),
        _FLOOR_NOTE,
    )
    for side in extent.sides:
        yield Plan(
            f"NSF.step on one matrix of {side} x {side}",
            side * side,
            partial(_steps, [torch.Size((side, side))], device),
            _FLOOR_NOTE,
            sweep="nsf",
            finding=(DEFAULT, TORCH),
        )
    # Only a GPU does these in reasonable time.
    if device.type == "cuda":
        makers: dict[str, MakeOptimizer] = {
            TORCH: partial(AdamW, fused=True),
            DEFAULT: partial(NSF, p=0.7),
        }
        yield training(extent, device, makers)


def _steps(shapes: Sequence[torch.Size], device: torch.device, everyone: bool = False) -> Lineup:
    """NSF and Adam on matrices; with ``everyone`` all variants and other libraries too."""
    work = Workload(shapes, device)
    lineup = Lineup([], renew=work.renew)
    floors = _floors(count(shapes), device)

    def add(name: str, make: Callable[..., Optimizer], streams: int, **options: Any) -> None:
        optimizer = make(work.params, lr=1e-3, **options)
        # An optimizer that cannot run fails here, before it becomes a contender.
        work.restore()
        optimizer.step()
        floor = floors[streams]
        lineup.contenders.append(work.stepping(name, optimizer, floor.name, floor.moves))

    if everyone:
        add("AdamW, loop", AdamW, _ADAM_STREAMS, foreach=False)
        add("AdamW, foreach", AdamW, _ADAM_STREAMS, foreach=True)
    add(TORCH, AdamW, _ADAM_STREAMS, fused=True)
    add("NSF, p = 0.7, reference", NSF, _NSF_STREAMS, p=0.7, foreach=False)
    add("NSF, p = 0.5", NSF, _ADAM_STREAMS, p=0.5)
    add(DEFAULT, NSF, _NSF_STREAMS, p=0.7)
    add("NSF, p = 0.7, fused", NSF, _NSF_STREAMS, p=0.7, fused=True)
    if everyone:
        add("NSF, p = 0.5, fused", NSF, _ADAM_STREAMS, fused=True, p=0.5)
        cycle = Cyclic(0.7, 0.3, period=20)
        add("NSF, p cycled", NSF, _NSF_STREAMS, p=cycle)
        add("NSF, p cycled, fused", NSF, _NSF_STREAMS, p=cycle, fused=True)
        for name, (module, cls, settings) in _OTHERS.items():
            try:
                make = getattr(importlib.import_module(module), cls)
                add(name, make, _ADAM_STREAMS, **settings)
            except ModuleNotFoundError as error:
                lineup.absent[name] = f"{error.name} is not installed"
            except Exception as error:  # The other optimizers can still be measured.
                lineup.absent[name] = f"{type(error).__name__}: {error}"
    lineup.contenders += floors.values()
    return lineup


def _floors(parameters: int, device: torch.device) -> dict[int, Contender]:
    """Passes over memory that move as many bytes as an optimizer must, by the number of streams.

    They read and write in place, as optimizers do. On a CPU a copy is slower than Adam, since the
    processor reads the target of a copy before it writes it.
    """
    everything = torch.ones(_NSF_STREAMS * parameters // 2, device=device)
    return {
        streams: Contender(
            f"{streams} streams",
            everything[: streams * parameters // 2].neg_,
            moves=streams * FLOAT_BYTES * parameters,
        )
        for streams in (_ADAM_STREAMS, _NSF_STREAMS)
    }
