"""The memory that the optimizers keep between steps, and the most that a step needs."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.optim import AdamW, Optimizer
from torch.profiler import ProfilerActivity, profile

from bandwise import NSF, SMI
from benchmarks.plan import FLOAT_BYTES, Workload, count
from benchmarks.results import Footprint
from benchmarks.smi import Idle


def smi(shapes: Sequence[torch.Size], device: torch.device) -> list[Footprint]:
    """SMI's state over the parameters, and its peak over the largest batch of equal shapes."""
    work = Workload(shapes, device)
    parameters = count(shapes) * FLOAT_BYTES
    footprints = []
    for name, dtype in (("float32", None), ("bfloat16", torch.bfloat16)):
        optimizer = SMI(Idle(work.params), alpha=0.3, history_dtype=dtype)
        optimizer.step()
        kept = state_bytes(optimizer)
        footprints.append(Footprint(f"SMI state, {name} history", kept, "parameters", parameters))
    largest = max(shape.numel() * equal * FLOAT_BYTES for shape, equal in Counter(shapes).items())
    optimizer = SMI(Idle(work.params), alpha=0.3)
    optimizer.step()  # Makes the state, which does not count as peak.
    work.restore()
    peak = peak_extra(optimizer.step, device)
    batch = "the largest batch of equal shapes"
    return [*footprints, Footprint("SMI, peak extra in a step", peak, batch, largest)]


def nsf(shapes: Sequence[torch.Size], device: torch.device) -> list[Footprint]:
    """NSF's state over AdamW's, and its peak over the parameters."""
    work = Workload(shapes, device)
    optimizer, adamw = NSF(work.params, p=0.7), AdamW(work.params)
    optimizer.step()
    adamw.step()
    peak = peak_extra(optimizer.step, device)
    return [
        Footprint("NSF state", state_bytes(optimizer), "AdamW's state", state_bytes(adamw)),
        Footprint("NSF, peak extra in a step", peak, "parameters", count(shapes) * FLOAT_BYTES),
    ]


def state_bytes(optimizer: Optimizer) -> int:
    """The bytes of all tensors that an optimizer keeps between steps."""
    return sum(
        value.nbytes
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )


def peak_extra(call: Callable[[], object], device: torch.device) -> int:
    """The largest number of bytes that a call allocates at a time.

    torch's allocator counts them. On a CPU the workspaces of libraries are not counted.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    # Otherwise the profiler reports its starts and stops on stderr.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    changes = [event for event in events if event["name"] == "[memory]"]
    held = peak = 0
    for change in sorted(changes, key=lambda event: (event["ts"], event["args"]["Ev Idx"])):
        held += change["args"]["Bytes"]
        peak = max(peak, held)
    return peak
