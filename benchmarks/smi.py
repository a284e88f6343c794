"""The cost of SMI's step: alone, by size, and around an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from bandwise import NSF, SMI
from benchmarks.algorithm1 import Algorithm1
from benchmarks.plan import Extent, Lineup, Plan, Workload, count, matrices
from benchmarks.timing import Contender
from benchmarks.training import training

LITERAL, DEFAULT, FLOOR = "Algorithm 1 as written", "SMI", "two FFTs"
BASE, AROUND = "AdamW, fused", "SMI around AdamW, fused"
# Only on a GPU.
FUSED, FUSED_AROUND = "SMI, fused", "SMI, fused, around AdamW, fused"
_ALPHA = 0.3
_REFRESH_EVERY = 4
_FLOOR_NOTE = (
    "SMI alone, around a base that does nothing. two FFTs, the floor: rfft2 and irfft2 of as many "
    "matrices of the same shapes."
)


class Idle(Optimizer):
    """A base that does nothing, so that the step is SMI's work alone."""

    def __init__(self, params: Sequence[Tensor]) -> None:
        super().__init__(params, {})

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Do nothing."""


def plans(extent: Extent, device: torch.device) -> Iterator[Plan]:
    """All cases of SMI."""
    shapes = matrices(extent.gpt)
    yield Plan(
        f"SMI.step on the {len(shapes)} matrices of a GPT",
        count(shapes),
        partial(_alone, shapes, device),
        _FLOOR_NOTE,
    )
    yield Plan(
        f"SMI around an optimizer, on the {len(shapes)} matrices of a GPT",
        count(shapes),
        partial(_around, shapes, device),
        "Each time over that of the optimizer alone.",
    )
    for side in extent.sides:
        yield Plan(
            f"SMI.step on one matrix of {side} x {side}",
            side * side,
            partial(_alone, [torch.Size((side, side))], device),
            _FLOOR_NOTE,
            sweep="smi",
            finding=(DEFAULT, LITERAL),
        )
    # Only a GPU does these in reasonable time.
    if device.type == "cuda":
        makers = {BASE: _adamw, AROUND: _smi_around_adamw, FUSED_AROUND: _fused_smi_around_adamw}
        yield training(extent, device, makers)
        yield from stacks(extent, device)


def stacks(extent: Extent, device: torch.device) -> Iterator[Plan]:
    """Models from small to large, for the paper's law (18)."""
    side = torch.Size((extent.stack_side, extent.stack_side))
    for size in extent.stacks:
        yield Plan(
            f"SMI around AdamW, on {size} matrices of {side[0]} x {side[1]}",
            size * side.numel(),
            partial(_around_adamw, [side] * size, device),
            "Each time over that of AdamW alone.",
            sweep="smi-parameters",
            finding=(AROUND, BASE),
        )


def _alone(shapes: Sequence[torch.Size], device: torch.device) -> Lineup:
    work = Workload(shapes, device)
    literal = Algorithm1([param.grad for param in work.params if param.grad is not None], _ALPHA)

    def smi(name: str, steps: int = 1, **options: Any) -> Contender:
        optimizer = SMI(Idle(work.params), alpha=_ALPHA, **options)
        return work.stepping(name, optimizer, FLOOR, steps=steps)

    contenders = [
        Contender(LITERAL, literal.step, work.restore, FLOOR),
        smi("SMI, reference", foreach=False),
        smi(DEFAULT),
        *([smi(FUSED, fused=True)] if device.type == "cuda" else []),
        smi("SMI, bfloat16 history", history_dtype=torch.bfloat16),
        smi(
            f"SMI, refresh every {_REFRESH_EVERY}",
            steps=_REFRESH_EVERY,
            refresh_every=_REFRESH_EVERY,
        ),
        Contender(FLOOR, _two_ffts(work.params, device)),
    ]
    return Lineup(contenders, renew=work.renew)


def _two_ffts(params: Sequence[Tensor], device: torch.device) -> Callable[[], None]:
    """Two transforms of every matrix: in batches on a GPU, one by one on a CPU for its cache."""
    batches = [param.detach() for param in params]
    if device.type == "cuda":
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for matrix in batches:
            by_shape.setdefault(matrix.shape, []).append(matrix)
        batches = [torch.stack(equal) for equal in by_shape.values()]

    def there_and_back() -> None:
        for batch in batches:
            torch.fft.irfft2(torch.fft.rfft2(batch), s=batch.shape[-2:])

    return there_and_back


def _around(shapes: Sequence[torch.Size], device: torch.device) -> Lineup:
    work = Workload(shapes, device)
    contenders = [
        work.stepping(BASE, _adamw(work.params)),
        work.stepping(AROUND, _smi_around_adamw(work.params), BASE),
        work.stepping("NSF", NSF(work.params)),
        work.stepping("SMI around NSF", SMI(NSF(work.params), alpha=_ALPHA), "NSF"),
    ]
    return Lineup(contenders, renew=work.renew)


def _around_adamw(shapes: Sequence[torch.Size], device: torch.device) -> Lineup:
    work = Workload(shapes, device)
    contenders = [
        work.stepping(BASE, _adamw(work.params)),
        work.stepping(AROUND, _smi_around_adamw(work.params), BASE),
        work.stepping(FUSED_AROUND, _fused_smi_around_adamw(work.params), BASE),
    ]
    return Lineup(contenders, renew=work.renew)


def _adamw(params: Sequence[Tensor]) -> Optimizer:
    return AdamW(params, fused=True)


def _smi_around_adamw(params: Sequence[Tensor]) -> Optimizer:
    return SMI(_adamw(params), alpha=_ALPHA)


def _fused_smi_around_adamw(params: Sequence[Tensor]) -> Optimizer:
    return SMI(_adamw(params), alpha=_ALPHA, fused=True)
