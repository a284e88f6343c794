"""What a step of SMI or NSF costs each of several ranks, on the matrices of the paper's GPT.

    for n in 1 2 4; do torchrun --standalone --nproc-per-node $n benchmarks/distributed.py OUT; done
    python benchmarks/distributed.py OUT --draw

Bytes sent, bytes of history and operations of the transforms are counted, so a shared machine will
do; each is the largest over ranks. ``--rounds 20`` also times steps: that needs a machine to itself
with a core or, with ``--device cuda``, a GPU for every rank.
"""

import argparse
import json
import math
import statistics
import time
from collections import Counter
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.overrides import TorchFunctionMode

import bandwise as bw
from bandwise.tasks.gpt import GPT, GPTConfig

SCHEMES = ("SMI, DDP", "SMI, DDP, shard_work", "SMI, FSDP2", "NSF, FSDP2")
COSTS = {
    "sent": "bytes sent a step, over those of the gradients",
    "history": "bytes of history, over those of the gradients",
    "operations": "operations of the transforms, over those of one process",
}


def matrices():
    with torch.device("meta"):
        return [p.shape for p in GPT(GPTConfig(vocabulary=65)).parameters() if p.ndim == 2]


class Transforms(TorchFunctionMode):
    """Counts operations as is usual: 5 N log2 N for a complex transform, half for a real one."""

    operations = 0.0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name, x = getattr(func, "__name__", ""), args[0] if args else None
        if name in ("fft_rfft", "fft_irfft", "fft_rfft2", "fft_irfft2", "fft_fft", "fft_ifft"):
            n = x.shape[-2]
            real = x if "_r" in name else result
            if name not in ("fft_fft", "fft_ifft"):
                self.operations += 2.5 * real.numel() * math.log2(real.shape[-1])
            if name not in ("fft_rfft", "fft_irfft"):
                half = x if "_i" in name or name == "fft_fft" else result
                self.operations += 5 * half.numel() * math.log2(n)
        return result


def counted(optimizer, restore):
    """The bytes that a rank sends in a step, and the operations of its transforms."""
    sent = Counter()
    all_to_all, all_reduce = dist.all_to_all_single, dist.all_reduce

    def exchange(output, input, output_sizes, input_sizes, group, **kwargs):  # noqa: A002
        own = input_sizes[dist.get_rank(group)]
        sent["bytes"] += (input.numel() - own) * input.itemsize
        return all_to_all(output, input, output_sizes, input_sizes, group=group, **kwargs)

    def reduce(tensor, group, **kwargs):
        # In a ring each rank sends that much.
        ranks = dist.get_world_size(group)
        sent["bytes"] += 2 * (ranks - 1) / ranks * tensor.nbytes
        return all_reduce(tensor, group=group, **kwargs)

    restore()
    with (
        mock.patch.object(dist, "all_to_all_single", exchange),
        mock.patch.object(dist, "all_reduce", reduce),
        Transforms() as transforms,
    ):
        optimizer.step()
    return sent["bytes"], transforms.operations


def measured(scheme, mesh, device, rounds):
    """The costs of a scheme on this rank."""
    params, gradients = [], []
    for shape in matrices():
        param, gradient = torch.zeros(shape, device=device), torch.randn(shape, device=device)
        if "FSDP2" in scheme:
            param, gradient = (distribute_tensor(x, mesh, [Shard(0)]) for x in (param, gradient))
        params.append(param)
        gradients.append(gradient)

    def restore():
        for param, gradient in zip(params, gradients, strict=True):
            param.grad = gradient.clone()

    if scheme.startswith("SMI"):
        base = torch.optim.SGD(params, lr=0)
        optimizer = bw.SMI(base, alpha=0.3, shard_work="shard_work" in scheme)
    else:
        optimizer = bw.NSF(params, p=0.7)
    restore()
    optimizer.step()
    sent, operations = counted(optimizer, restore)
    histories = [s["smi_history"] for s in optimizer.state.values() if "smi_history" in s]
    held = [h.to_local() if isinstance(h, DTensor) else h for h in histories]
    times = []
    for _ in range(rounds):
        restore()
        dist.barrier()
        start = time.perf_counter()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return {
        "sent": sent,
        "history": sum(h.nbytes for h in held),
        "operations": operations,
        "seconds": statistics.median(times) if times else None,
    }


def measure(out, device, rounds):
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if device == "cuda":
        torch.cuda.set_device(rank)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    mesh = init_device_mesh(device, (ranks,))
    results = {}
    for scheme in SCHEMES:
        everyones = [None] * ranks
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


def computed(scheme, ranks):
    """The same costs, of the rank that has most, by the formulas of docs/distributed.md."""
    if scheme == "SMI, DDP":
        return {**computed("SMI, FSDP2", 1), "sent": 0}
    others = (ranks - 1) / ranks
    costs = Counter()
    for n, d in matrices():
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
    return {cost: costs[cost] for cost in COSTS}


def draw(out):
    import matplotlib
    from matplotlib.figure import Figure

    found = {
        int(path.stem.split("-")[1]): json.loads(path.read_text(encoding="utf-8"))
        for path in out.glob("distributed-*.json")
    }
    gradients = sum(4 * shape.numel() for shape in matrices())
    whole = computed("SMI, DDP", 1)["operations"]
    units = {"sent": gradients, "history": gradients, "operations": whole}
    ranks = [2**i for i in range(9)]
    beyond = [r for r in ranks if r >= max(found)]
    # Those that coincide show behind one another.
    looks = [("#0072B2", "o", 10), ("#D55E00", "s", 8), ("#009E73", "D", 4), ("#CC79A7", "^", 4)]
    style = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context({**style, "svg.hashsalt": "bandwise"}):
        figure = Figure(figsize=(10, 4), layout="constrained")
        for axes, (cost, title) in zip(figure.subplots(1, 3), COSTS.items(), strict=True):
            for scheme, (colour, marker, size) in zip(SCHEMES, looks, strict=True):
                x = sorted(found)
                y = [found[r][scheme][cost] / units[cost] for r in x]
                axes.plot(x, y, color=colour, marker=marker, ms=size, label=scheme)
                y = [computed(scheme, r)[cost] / units[cost] for r in beyond]
                axes.plot(beyond, y, ":", color=colour)
            axes.set_xscale("log", base=2)
            axes.set(xlabel="ranks", xticks=[1, 4, 16, 64, 256], xticklabels=[1, 4, 16, 64, 256])
            axes.set_title(title.replace(", ", ",\n"), loc="left", fontsize=10)
            axes.set_ylim(bottom=0)
            axes.grid(visible=True, color="#ddd", linewidth=0.6)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        figure.suptitle(
            f"What each rank pays in a step: counted up to {max(found)} ranks (marks), computed "
            "beyond (dotted)",
            x=0.01,
            ha="left",
            fontsize=11,
        )
        figure.savefig(out / "distributed.svg", metadata={"Date": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--draw", action="store_true", help="draw what is there, count nothing")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=0, help="steps to time")
    arguments = parser.parse_args()
    if arguments.draw:
        draw(arguments.out)
    else:
        measure(arguments.out, arguments.device, arguments.rounds)
