"""The cost of a step of SMI or NSF for each of several ranks, on the matrices of SMI's paper's GPT.

    for n in 1 2 4; do
      torchrun --standalone --nproc-per-node $n -m benchmarks.distributed OUT
    done
    python -m benchmarks.distributed OUT --draw

It counts bytes sent, bytes of history and operations of the transforms, so a busy machine is good
enough. Each figure is the largest over ranks. ``--rounds 20`` also times steps. That needs an idle
machine with a core for every rank, or a GPU for every rank with ``--device cuda``.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

import plotly.graph_objects as go
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

import bandwise as bw
from bandwise.figures.figure import blank, line
from bandwise.tasks.gpt import GPTConfig
from benchmarks.draw import titled, write
from benchmarks.plan import FLOAT_BYTES, count, matrices
from benchmarks.timing import threads

Costs: TypeAlias = dict[str, float | None]

SCHEMES = ("SMI, DDP", "SMI, DDP, shard_work", "SMI, FSDP2", "NSF, FSDP2")
COSTS = {
    "sent": "bytes sent a step, over<br>those of the gradients",
    "history": "bytes of history, over<br>those of the gradients",
    "operations": "operations of the transforms,<br>over those of one process",
}
SHAPES = matrices(GPTConfig(vocabulary=65))


class Transforms(TorchFunctionMode):
    """Counts 5 N log2 N operations for a complex transform, and half of that for a real one."""

    operations = 0.0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch, and count its operations if it is a transform."""
        result = func(*args, **(kwargs or {}))
        name: str = getattr(func, "__name__", "")
        x: Any = args[0] if args else None
        if name in ("fft_rfft", "fft_irfft", "fft_rfft2", "fft_irfft2", "fft_fft", "fft_ifft"):
            n = x.shape[-2]
            real = x if "_r" in name else result
            if name not in ("fft_fft", "fft_ifft"):
                self.operations += 2.5 * real.numel() * math.log2(real.shape[-1])
            if name not in ("fft_rfft", "fft_irfft"):
                half = x if "_i" in name or name == "fft_fft" else result
                self.operations += 5 * half.numel() * math.log2(n)
        return result


def counted(optimizer: Optimizer) -> tuple[float, float]:
    """The bytes that a rank sends in a step, and the operations of its transforms."""
    sent = 0.0
    all_to_all, all_reduce = dist.all_to_all_single, dist.all_reduce

    def exchange(
        output: Tensor, input: Tensor, output_sizes: list[int], input_sizes: list[int],  # noqa: A002
        group: dist.ProcessGroup, **kwargs: Any,
    ) -> Any:  # fmt: skip
        nonlocal sent
        own = input_sizes[dist.get_rank(group)]
        sent += (input.numel() - own) * input.itemsize
        return all_to_all(output, input, output_sizes, input_sizes, group=group, **kwargs)

    def reduce(tensor: Tensor, group: dist.ProcessGroup, **kwargs: Any) -> Any:
        nonlocal sent
        # The bytes that each rank sends in a ring.
        ranks = dist.get_world_size(group)
        sent += 2 * (ranks - 1) / ranks * tensor.nbytes
        return all_reduce(tensor, group=group, **kwargs)

    with (
        mock.patch.object(dist, "all_to_all_single", exchange),
        mock.patch.object(dist, "all_reduce", reduce),
        Transforms() as transforms,
    ):
        optimizer.step()
    return sent, transforms.operations


def measured(scheme: str, mesh: DeviceMesh, device: str, rounds: int) -> Costs:
    """The costs of a scheme on this rank."""
    params: list[Tensor] = []
    gradients: list[Tensor] = []
    for shape in SHAPES:
        param, gradient = torch.zeros(shape, device=device), torch.randn(shape, device=device)
        if "FSDP2" in scheme:
            param, gradient = (distribute_tensor(x, mesh, [Shard(0)]) for x in (param, gradient))
        params.append(param)
        gradients.append(gradient)

    def restore() -> None:
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = gradient.clone()

    optimizer: Optimizer = bw.NSF(params, p=0.7)
    if scheme.startswith("SMI"):
        base = torch.optim.SGD(params, lr=0)
        optimizer = bw.SMI(base, alpha=0.3, shard_work="shard_work" in scheme)
    restore()
    optimizer.step()
    restore()
    sent, operations = counted(optimizer)
    histories = [s["smi_history"] for s in optimizer.state.values() if "smi_history" in s]
    held = [h.to_local() if isinstance(h, DTensor) else h for h in histories]
    times = [timed(optimizer.step, restore, device) for _ in range(rounds)]
    return {
        "sent": sent,
        "history": sum(h.nbytes for h in held),
        "operations": operations,
        "seconds": statistics.median(times) if times else None,
    }


def timed(step: Callable[[], object], restore: Callable[[], None], device: str) -> float:
    """The seconds of a step. All ranks begin it together."""
    restore()
    dist.barrier()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(out: Path, device: str, rounds: int) -> None:
    """Measure all schemes on the ranks of this launch, and write their costs."""
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if device == "cuda":
        torch.cuda.set_device(rank)
    torch.manual_seed(0)
    mesh = init_device_mesh(device, (ranks,))
    results = {}
    for scheme in SCHEMES:
        everyones: list[Any] = [None] * ranks
        with threads(1):
            dist.all_gather_object(everyones, measured(scheme, mesh, device, rounds))
        results[scheme] = {
            key: None if value is None else max(one[key] for one in everyones)
            for key, value in everyones[0].items()
        }
        if rank == 0:
            print(f"{ranks} ranks, {scheme}: {results[scheme]}")
    if rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"distributed-{ranks}.json"
        path.write_text(json.dumps(results, indent=1), encoding="utf-8")
    dist.destroy_process_group()


def computed(scheme: str, ranks: int) -> dict[str, float]:
    """The costs of the most expensive rank, by the formulas of docs/distributed.md."""
    if scheme == "SMI, DDP":
        return {**computed("SMI, FSDP2", 1), "sent": 0}
    others = (ranks - 1) / ranks
    costs: dict[str, float] = dict.fromkeys(COSTS, 0.0)
    for n, d in SHAPES:
        m = d // 2 + 1
        rows, columns = math.ceil(n / ranks), math.ceil(m / ranks)
        if scheme == "NSF, FSDP2":
            costs["sent"] += 2 * others * 3 * 8
            continue
        costs["sent"] += 8 * others * (rows * m + n * columns)
        costs["sent"] += 2 * others * (8 * (127 + 3 * 255) + 4)
        if "shard_work" in scheme:
            costs["sent"] += 4 * (ranks - 1) * rows * d
        costs["history"] += 4 * n * columns
        costs["operations"] += 5 * rows * d * math.log2(d) + 10 * n * columns * math.log2(n)
    return costs


def figure(out: Path) -> go.Figure:
    """The costs of a step for each rank, against the number of ranks."""
    found = {
        int(path.stem.split("-")[1]): json.loads(path.read_text(encoding="utf-8"))
        for path in out.glob("distributed-*.json")
    }
    if not found:
        raise FileNotFoundError(f"{out} has no distributed-*.json: measure first")
    gradients = FLOAT_BYTES * count(SHAPES)
    whole = computed("SMI, DDP", 1)["operations"]
    units = {"sent": gradients, "history": gradients, "operations": whole}
    beyond = [ranks for ranks in (2**i for i in range(9)) if ranks >= max(found)]
    plot = titled(
        blank(400, len(SCHEMES), rows=1, cols=3, subplot_titles=list(COSTS.values())),
        f"What each rank pays in a step: counted up to {max(found)} ranks (marks), computed "
        "beyond (dotted)",
    )
    # Marks of equal schemes lie on one another, so they differ in size.
    for place, (scheme, symbol, size) in enumerate(
        zip(SCHEMES, ("circle", "square", "diamond", "triangle-up"), (14, 11, 7, 6), strict=True), 1
    ):
        colour = line(place).colour
        for column, cost in enumerate(COSTS, 1):
            plot.add_scatter(
                x=sorted(found),
                y=[found[ranks][scheme][cost] / units[cost] for ranks in sorted(found)],
                name=scheme, legendgroup=scheme, showlegend=column == 1, row=1, col=column,
                mode="lines+markers", line_color=colour, marker={"symbol": symbol, "size": size},
            )  # fmt: skip
            plot.add_scatter(
                x=beyond,
                y=[computed(scheme, ranks)[cost] / units[cost] for ranks in beyond],
                legendgroup=scheme, showlegend=False, row=1, col=column,
                mode="lines", line={"color": colour, "dash": "dot"},
            )  # fmt: skip
    plot.update_xaxes(type="log", title_text="ranks", tickvals=[1, 4, 16, 64, 256], showgrid=True)
    plot.update_yaxes(rangemode="tozero")
    plot.update_layout(legend={"y": -0.25, "yanchor": "top"})
    return plot


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    made.add_argument("out", type=Path)
    made.add_argument("--draw", action="store_true", help="draw what is there, count nothing")
    made.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    made.add_argument("--rounds", type=int, default=0, help="steps to time")
    return made


if __name__ == "__main__":
    arguments = parser().parse_args()
    if arguments.draw:
        write(figure(arguments.out), arguments.out / "distributed.html")
    else:
        measure(arguments.out, arguments.device, arguments.rounds)
