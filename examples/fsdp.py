"""SMI or NSF with fully_shard (FSDP2). Every process has a part of each parameter.

    torchrun --standalone --nproc-per-node 2 examples/fsdp.py

If you run it again, with more --steps and any number of processes, it continues from its
checkpoint. It uses GPUs if there are any.
"""

import argparse
import gc
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

import bandwise as bw


def main(steps: int, folder: Path, name: str) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    if device == "cuda":
        torch.cuda.set_device(rank % torch.cuda.device_count())

    torch.manual_seed(0)
    layers = nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 1)
    model = nn.Sequential(*layers).to(device)
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    fully_shard(model)
    if name == "smi":
        optimizer = bw.SMI(torch.optim.AdamW(model.parameters(), lr=3e-3), alpha=0.3)
    else:
        optimizer = bw.NSF(model.parameters(), lr=3e-3, p=0.7)

    start = 0
    if (folder / ".metadata").exists():
        state = checkpoint(model, optimizer, start)
        dcp.load(state, checkpoint_id=folder)
        set_state_dict(
            model,
            optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        start = state["step"]

    for step in range(start, steps):
        x, y = (part.chunk(ranks)[rank] for part in batch(step, device))
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 10 == 0:
            dist.all_reduce(loss := loss.detach(), op=dist.ReduceOp.SUM)
            if rank == 0:
                print(f"step {step + 1}, loss {loss.item() / ranks:.6f}")

    # All ranks save. Each saves its part.
    dcp.save(checkpoint(model, optimizer, steps), checkpoint_id=folder)
    dist.destroy_process_group()


def checkpoint(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> dict:
    model_state, optimizer_state = get_state_dict(model, optimizer)
    return {"model": model_state, "optimizer": optimizer_state, "step": step}


def batch(step: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole batch, the same for any number of processes. Each process takes its part."""
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(step))
    return x.to(device), x.sin().sum(1, keepdim=True).to(device)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--checkpoint", type=Path, default=Path("bandwise-runs/fsdp"))
    parser.add_argument("--optimizer", choices=["smi", "nsf"], default="smi")
    arguments = parser.parse_args()
    main(arguments.steps, arguments.checkpoint, arguments.optimizer)
    # Sharded modules keep gloo's threads alive until the garbage collector finds them. If these
    # threads outlive Python, the process may abort.
    gc.collect()
