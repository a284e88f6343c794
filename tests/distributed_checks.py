"""The checks that ``test_distributed.py`` runs in several processes: functions of (rank, world).

They run in this order. Every process knows all gradients, so it can compare the shared result with
its own.
"""

import copy
import io
import itertools
import math
import os
import traceback
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils._pytree import tree_map_only

import bandwise as bw
from bandwise.optim._paths import sharding, smi_sharded
from bandwise.optim._spectrum import Grid
from several import Several

CHECKS = {2: {}, 4: {}}
DEVICE = "cpu"


def check(worlds=(2, 4)):
    def register(function):
        for world in worlds:
            CHECKS[world][function.__name__] = function
        return function

    return register


@contextmanager
def noting(what):
    """If a check fails, add its subject to the error."""
    try:
        yield
    except BaseException as error:
        error.add_note(what)
        raise


def outcome(folder, world, rank, name):
    """The file with the outcome of a check: empty, or the error."""
    return Path(folder) / f"{world}-{rank}-{name}.txt"


def process(rank, world, folder, device, names):
    """Run the checks for this number of processes, until one fails."""
    global DEVICE
    DEVICE = device
    os.environ["BANDWISE_CHECKPOINTS"] = str(folder)
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(rank)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        init_method=f"file://{folder}/meeting-{world}",
        rank=rank,
        world_size=world,
        # On a busy machine one process may compile kernels for long while the others wait.
        timeout=timedelta(seconds=200),
    )
    for name in names:
        torch.manual_seed(0)
        try:
            CHECKS[world][name](rank, world)
        except BaseException:
            outcome(folder, world, rank, name).write_text(traceback.format_exc())
            raise
        outcome(folder, world, rank, name).write_text("")
    dist.destroy_process_group()


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


SHAPES = [(7, 6), (7, 6), (3, 4, 2, 2), (1, 9), (9,), (33, 1)]
KERNELS = [(7, 3, 2, 3), (3, 4, 5), (1, 6, 2, 2)]
# The rounding of sums of a few hundred values in different orders.
ROUNDING = {torch.float64: 1e-13, torch.float32: 1e-5, torch.complex64: 1e-5}
# Rounding in float32 may move a value of 16 bits to its neighbour.
ROUNDING |= {torch.bfloat16: 2.0**-7}


def placements_of(mesh, shape):
    """The placements of a tensor on a mesh: replicated, by rows, by columns, by both."""
    row, column, all_of_it = Shard(0), Shard(1), Replicate()
    if mesh.ndim == 1:
        return [[all_of_it], [row], [column]] if len(shape) > 1 else [[all_of_it], [row]]
    if len(shape) > 1:
        return [[all_of_it, row], [row, row], [row, column], [column, row]]
    return [[row, all_of_it], [row, row]]


def random(shape, dtype, *seed):
    generator = torch.Generator().manual_seed(sum(1000**i * s for i, s in enumerate(seed)))
    return torch.randn(shape, dtype=dtype, generator=generator).to(DEVICE)


def gradient(shape, dtype, step, i, again=0):
    """A gradient. Some are None, and the first of some holds inf or NaN."""
    result = random(shape, dtype, step, i, again)
    if (step + i) % 7 == 5 and not again:
        result.view(-1)[-1] = (math.nan, math.inf)[i % 2]
    return None if (step + i) % 5 == 4 else result


def compare_filters(mesh, shapes, dtype, shard_work=False, evaluations=1, **settings):
    """Compare SMI's gradients and histories between shared tensors and one process."""
    spread, alone = [], []
    for shape in shapes:
        zeros = torch.zeros(shape, dtype=dtype, device=DEVICE)
        for places in [None] if shard_work else placements_of(mesh, shape):
            alone.append(zeros.clone())
            spread.append(
                zeros.clone()
                if shard_work
                else distribute_tensor(zeros, mesh, places, src_data_rank=None)
            )
    make = lambda params, **kw: bw.SMI(  # noqa: E731
        Several(params, evaluations, lr=1.0), 20, beta=0.8, min_ndim=1, **settings, **kw
    )
    reference = make(alone)
    shared = make(spread, shard_work=shard_work)
    for step in range(5):
        for opt, params in ((reference, alone), (shared, spread)):
            evaluated = itertools.count()

            def closure(params=params, step=step, evaluated=evaluated):
                again = next(evaluated)
                for i, param in enumerate(params):
                    grad = gradient(param.shape, dtype, step, i, again)
                    if grad is not None and isinstance(param, DTensor):
                        # Some gradients have another layout than the parameter.
                        everywhere = [Replicate()] * mesh.ndim
                        places = everywhere if (step + i) % 3 == 0 else param.placements
                        grad = distribute_tensor(grad, mesh, places, src_data_rank=None)
                    param.grad = grad
                return 0.0

            opt.step(closure)
        for a, b in zip(alone, spread, strict=True):
            if a.grad is not None:
                close(whole(b.grad), a.grad, dtype)
                right, found = reference.state[a]["smi_history"], shared.state[b]["smi_history"]
                assert isinstance(found, DTensor)
                close(found.full_tensor(), right, right.dtype)
            if settings.get("refresh_every", 1) > 1 and a in reference.state:
                assert torch.equal(
                    shared.state[b]["smi_mask"].full_tensor(), reference.state[a]["smi_mask"]
                )


def close(found, right, dtype):
    assert found.dtype == right.dtype
    assert torch.equal(found.isfinite(), right.isfinite())
    found, right = (torch.where(x.isfinite(), x, 0).to(torch.complex128) for x in (found, right))
    assert (found - right).norm() <= ROUNDING[dtype] * right.norm(), (found, right)


def meshes(world):
    yield init_device_mesh(DEVICE, (world,))
    if world == 4:
        yield init_device_mesh(DEVICE, (2, 2), mesh_dim_names=("a", "b"))


@check()
def sharded_gradients_are_filtered_as_whole_ones(rank, world):
    for mesh in meshes(world):
        compare_filters(mesh, SHAPES, torch.float64, q=0.3, alpha=bw.Cosine(0.2, 0.9))
        compare_filters(mesh, KERNELS, torch.float64, layout="paper", q=0.3, alpha=0.5)


@check(worlds=[2])
def of_any_dtype_in_batches_of_one_and_with_masks_kept(rank, world):
    mesh = init_device_mesh(DEVICE, (world,))
    with mock.patch("bandwise.optim._paths.smi_update._SHARED_BATCH_NUMEL", 1):
        compare_filters(mesh, SHAPES, torch.float64, q=0.3, alpha=0.5)
    compare_filters(mesh, SHAPES[:4], torch.float64, q=0.5, alpha=1.0, refresh_every=2)
    for more in ({}, {"refresh_every": 2}, {"history_dtype": torch.float32}):
        compare_filters(mesh, SHAPES[:4], torch.float64, evaluations=2, q=0.5, alpha=0.5, **more)
    for dtype in (torch.float32, torch.complex64, torch.bfloat16):
        compare_filters(mesh, SHAPES[:4], dtype, q=0.3, alpha=0.5)


@check()
def sharded_gradients_are_filtered_as_the_readable_path_does(rank, world):
    for mesh in meshes(world):
        compare_filters(mesh, SHAPES, torch.float64, q=0.3, alpha=0.5, foreach=False)


@check()
def work_shared_on_plain_parameters(rank, world):
    for shard_work in (True, *meshes(world)):
        compare_filters(None, KERNELS, torch.float64, shard_work, layout="paper", q=0.3, alpha=0.5)
        for foreach in (None, False):
            compare_filters(
                None, SHAPES, torch.float64, shard_work, q=0.3, alpha=0.5, foreach=foreach
            )


@check()
def the_threshold_is_that_of_the_whole_spectrum_to_the_last_bit(rank, world):
    sharings = smi_sharded.Sharings(init_device_mesh(DEVICE, (world,)))
    sizes = [(1, 7), (6, 1), (5, 8), (40, 31)]
    dtypes = [torch.float32, torch.float64] if world == 2 else [torch.float32]
    for dtype, size, is_complex in itertools.product(dtypes, sizes, (False, True)):
        like = torch.zeros(size, dtype=torch.complex64 if is_complex else dtype, device=DEVICE)
        sharing = sharings.of(like)
        grid = Grid.of(like)
        shape = grid.shape
        smooth, ties, tails = (random((2, *shape), dtype, i) for i in range(3))
        tails = tails.mul(20).exp()
        tails[1] *= torch.finfo(dtype).tiny  # subnormal
        for M in (smooth.abs(), ties.mul(3).round().abs(), tails, torch.zeros_like(tails)):
            columns = slice(sharing.grid.columns.start, sharing.grid.columns.stop)
            for q in (0.0, 0.55, 1.0):
                found = completed(sharing.threshold(M[..., columns], q))
                assert torch.equal(found, grid.threshold(M, q))


@check()
def nsf_steps_as_on_one_process(rank, world):
    for mesh in meshes(world):
        for settings in (
            {"p": 0.7},
            {"p": -0.25, "scale": "sgd", "fused": True},
            {"p": 0.7, "foreach": False},
            {"p": 0.1, "scale": "none"},
        ):
            compare_nsf(mesh, [(7, 5), (3, 4, 2), (5,), (1, 3)], torch.float64, **settings)
        for dtype in (torch.complex64, torch.bfloat16):
            compare_nsf(mesh, [(7, 5), (5,)], dtype, p=bw.Cyclic(0.7, -0.25, period=4))
        # Kernels cannot see other ranks' parts, so none runs, even for a small tensor.
        with mock.patch("bandwise.optim._paths.nsf_fused._CPU_NUMEL", 1):
            compare_nsf(mesh, [(7, 5)], torch.float32, p=0.7, fused=True)


def compare_nsf(mesh, shapes, dtype, **settings):
    alone, spread = [], []
    for i, shape in enumerate(shapes):
        for places in placements_of(mesh, shape):
            start = random(shape, dtype, i)
            alone.append(start.clone())
            spread.append(distribute_tensor(start, mesh, places, src_data_rank=None))
    optimizers = [bw.NSF(some, lr=1e-2, **settings) for some in (alone, spread)]
    for step in range(3):
        for i, (a, b) in enumerate(zip(alone, spread, strict=True)):
            a.grad = random(a.shape, dtype, step, i)
            # In any layout.
            b.grad = distribute_tensor(a.grad.clone(), mesh, [Replicate()] * mesh.ndim)
        for optimizer in optimizers:
            optimizer.step()
        for a, b in zip(alone, spread, strict=True):
            close(whole(b), a, dtype)
            mine, theirs = optimizers[0].state[a], optimizers[1].state[b]
            for key in ("exp_avg", "exp_avg_sq"):
                assert theirs[key].placements == b.placements
                close(whole(theirs[key]), mine[key], dtype)


@check()
def no_filter_is_the_gradient_bit_for_bit(rank, world):
    for mesh in meshes(world):
        for settings in ({"alpha": 0.0}, {"alpha": 0.5, "q": 0.0}):
            for places in placements_of(mesh, (7, 5)):
                right = random((7, 5), torch.float64, 1)
                param = distribute_tensor(right * 0, mesh, places, src_data_rank=None)
                param.grad = distribute_tensor(right.clone(), mesh, places, src_data_rank=None)
                bw.SMI(torch.optim.SGD([param]), **settings).step()
                assert torch.equal(whole(param.grad), right)


# ---------------------------------------------------------------- training

STEPS, SAVED = 4, 2


def network():
    torch.manual_seed(1)
    layers = nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 6)
    return nn.Sequential(*layers).double().to(DEVICE)


def train(model, optimizer, steps, place=0, places=1, scaler=None, clip=None):
    """Train on the ``place``-th part of each batch. The mean over places is that of the batch.

    With a scaler the last value of step 1's batch is infinite.
    """
    for step in steps:
        x, y = random((16, 10), torch.float64, step, 1), random((16, 6), torch.float64, step, 2)
        if scaler and step == 1:
            y[-1, -1] = math.inf
        loss = (model(x.chunk(places)[place]) - y.chunk(places)[place]).square().mean()
        (scaler.scale(loss) if scaler else loss).backward()
        if scaler:
            scaler.unscale_(optimizer)
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        if scaler:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        optimizer.zero_grad()


def adamw(params, **settings):
    return torch.optim.AdamW(params, lr=1e-2, **settings)


OPTIMIZERS = {
    "SMI around AdamW": lambda params, **kw: bw.SMI(adamw(params), 9, min_ndim=1, **kw),
    "SMI around fused AdamW": lambda params, **kw: bw.SMI(adamw(params, fused=True), 9, **kw),
    "SMI around SGD": lambda params, **kw: bw.SMI(
        torch.optim.SGD(params, lr=0.1, momentum=0.9), 9, q=0.5, refresh_every=2, **kw
    ),
    "NSF": lambda params, **kw: bw.NSF(params, lr=1e-2, p=bw.Cyclic(0.7, -0.1, period=3)),
    "SMI around NSF": lambda params, **kw: bw.SMI(bw.NSF(params, lr=1e-2, p=0.6), 9, **kw),
}


def same_weights(found, right):
    """Compare weights in double precision.

    Rounding may turn a gradient of 0 into 1e-17. AdamW divides by sqrt(v) + 1e-8, so its step is
    then lr (1e-2) times 1e-9.
    """
    for a, b in zip(found.parameters(), right.parameters(), strict=True):
        torch.testing.assert_close(whole(a.detach()), b.detach(), rtol=1e-9, atol=1e-11)


def same_bits_everywhere(model):
    for param in model.parameters():
        first = param.detach().clone()
        dist.broadcast(first, 0)
        assert torch.equal(param, first)


def parallel(kind, world):
    """The model, distributed by its kind, and this rank's place among the parts of the batch."""
    model = network()
    if kind == "ddp":
        return nn.parallel.DistributedDataParallel(model), dist.get_rank(), world
    if kind == "fsdp":
        mesh = init_device_mesh(DEVICE, (world,))
        return sharded(model, mesh), dist.get_rank(), world
    if kind == "tp":
        return tensor_parallel(model, init_device_mesh(DEVICE, (world,))), 0, 1
    mesh = init_device_mesh(DEVICE, (2, 2), mesh_dim_names=("one", "two"))
    if kind == "hsdp":
        return sharded(model, mesh), dist.get_rank(), world
    model = sharded(tensor_parallel(model, mesh["two"]), mesh["one"])
    return model, mesh.get_local_rank("one"), 2


def sharded(model, mesh):
    for layer in model:
        if list(layer.parameters()):
            fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def tensor_parallel(model, mesh):
    last = RowwiseParallel(input_layouts=Replicate())
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel(), "4": last}
    return parallelize_module(model, mesh, plan)


@check()
def training_equals_that_of_one_process(rank, world):
    for kind in ["ddp", "fsdp", "tp"] + (["hsdp", "fsdp and tp"] if world == 4 else []):
        for name, make in OPTIMIZERS.items():
            # Each kind of base once. The more complex layouts have the other bases.
            if kind != "fsdp" and name not in ("SMI around AdamW", "SMI around SGD", "NSF"):
                continue
            clip = 0.05 if name == "SMI around SGD" else None
            shards = [{}, {"shard_work": True}] if kind == "ddp" and "SMI" in name else [{}]
            for more in shards:
                right = network()
                train(right, make(right.parameters()), range(STEPS), clip=clip)
                model, place, places = parallel(kind, world)
                with noting(f"{kind}, {name}, {more}"):
                    opt = make(model.parameters(), **more)
                    train(model, opt, range(STEPS), place, places, clip=clip)
                    same_weights(model, right)
                    if kind == "ddp":
                        same_bits_everywhere(model)


@check()
def a_scaler_skips_the_step_that_any_rank_finds_infinite(rank, world):
    for kind, name in itertools.product(["ddp", "fsdp", "tp"], ["SMI around SGD", "NSF"]):
        right = network()
        train(right, OPTIMIZERS[name](right.parameters()), [0, 2, 3])
        model, place, places = parallel(kind, world)
        more = {"shard_work": True} if kind == "ddp" and "SMI" in name else {}
        scaler = torch.amp.GradScaler(DEVICE)
        train(model, OPTIMIZERS[name](model.parameters(), **more), range(4), place, places, scaler)
        assert scaler.get_scale() == 2.0**15
        same_weights(model, right)


@check(worlds=[2])
def one_rank_alone_looks_on(rank, world):
    """Code that asked the other ranks for their parts would wait forever here."""
    kinds = {"ddp": {}, "ddp, shared": {"shard_work": True}, "fsdp": {}, "tp": {}}
    for kind, settings in kinds.items():
        model, place, places = parallel(kind.removesuffix(", shared"), world)
        opt = OPTIMIZERS["SMI around SGD"](model.parameters(), **settings)
        out = folder() / f"lens {kind}"
        look = bw.Lens(model, opt, every=1, out=out) if rank == 0 else nullcontext()
        readings = []
        if rank == 0:
            opt.register_step_pre_hook(
                lambda opt, *_, found=readings: found.append(bw.readings(opt))
            )
        with look:
            train(model, opt, range(4), place, places)
        if rank == 0:
            rows = [row for row in bw.Lens.read(out) if row["quantity"] == "spatial"]
            plain = kind.startswith("ddp")
            assert {row["step"] for row in rows} == ({1, 2, 3, 4} if plain else set())
            # From the second step on, other ranks hold parts of the histories.
            assert all(("smi/kept" in found) == (kind == "ddp") for found in readings[1:])
            assert all((row["kept"] is not None) == (kind == "ddp") for row in rows[-3:])
            assert all("smi/alpha" in found for found in readings)
            assert len(readings) == 4


@check()
def parameters_without_a_gradient_are_left_out(rank, world):
    """One layer is frozen. Another is used in every second step."""

    def run(model, optimizer, place=0, places=1):
        for step in range(4):
            x = random((16, 10), torch.float64, step).chunk(places)[place]
            hidden = model[0](x)
            if step % 2:
                hidden = hidden + model[2](hidden)
            model[4](hidden).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    for name in ("SMI around SGD", "NSF"):
        right, model = network(), network()
        for some in (right, model):
            some[4].requires_grad_(False)
        run(right, OPTIMIZERS[name](right.parameters()))
        model = sharded(model, init_device_mesh(DEVICE, (world,)))
        run(model, OPTIMIZERS[name](model.parameters()), rank, world)
        same_weights(model, right)


# ---------------------------------------------------------------- checkpoints

# The parallelism and the optimizer of each checkpoint.
SAVERS = {
    "ddp": ("ddp", "SMI around AdamW", {}),
    "shared": ("ddp", "SMI around SGD", {"shard_work": True, "history_dtype": torch.float32}),
    "fsdp": ("fsdp", "SMI around SGD", {}),
    "fsdp-nsf": ("fsdp", "SMI around NSF", {"alpha": 0.7}),
    "hsdp": ("hsdp", "NSF", {}),
    "both": ("fsdp and tp", "SMI around AdamW", {}),
}
OPTIONS = {"dcp": {}, "flat": {"flatten_optimizer_state_dict": True}}


def folder():
    return Path(os.environ["BANDWISE_CHECKPOINTS"])


def on_one_process(name):
    """The weights of the uninterrupted training, on one process."""
    _, optimizer, settings = SAVERS[name]
    model = network()
    settings = {key: value for key, value in settings.items() if key != "shard_work"}
    train(model, OPTIMIZERS[optimizer](model.parameters(), **settings), range(STEPS))
    return model


def parts(model, optimizer, **options):
    options = StateDictOptions(**options)
    return {
        "model": get_model_state_dict(model, options=options),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=options),
    }


def loaded(model, optimizer, state, **options):
    options = StateDictOptions(**options)
    set_model_state_dict(model, state["model"], options=options)
    set_optimizer_state_dict(model, optimizer, state["optimizer"], options=options)


@check(worlds=[4])
def four_save(rank, world):
    for name, (kind, optimizer, settings) in SAVERS.items():
        model, place, places = parallel(kind, world)
        opt = OPTIMIZERS[optimizer](model.parameters(), **settings)
        train(model, opt, range(SAVED), place, places)
        for how, options in OPTIONS.items():
            dcp.save(parts(model, opt, **options), checkpoint_id=folder() / f"{name}-{how}")
        full = parts(model, opt, full_state_dict=True, cpu_offload=True)
        if rank == 0:
            # Before torch 2.13 columns are gathered with gaps and broadcast to wrong places.
            full = tree_map_only(torch.Tensor, torch.Tensor.contiguous, full)
            torch.save(full, folder() / f"{name}.pt")
        # Saving changes nothing.
        train(model, opt, range(SAVED, STEPS), place, places)
        same_weights(plain(model), on_one_process(name))


def plain(model):
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


@check(worlds=[2])
def two_load_what_four_saved_and_train_on(rank, world):
    for name, (kind, optimizer, settings) in SAVERS.items():
        kind = {"hsdp": "fsdp", "fsdp and tp": "tp"}.get(kind, kind)
        for how in [*OPTIONS, "full", "broadcast"]:
            model, place, places = parallel(kind, world)
            opt = OPTIMIZERS[optimizer](model.parameters(), **settings)
            load(name, how, model, opt, rank)
            train(model, opt, range(SAVED, STEPS), place, places)
            with noting(f"{name}, {how}"):
                same_weights(plain(model), on_one_process(name))


def load(name, how, model, opt, rank=0):
    if how in OPTIONS:
        state = parts(model, opt, **OPTIONS[how])
        dcp.load(state, checkpoint_id=folder() / f"{name}-{how}")
        loaded(model, opt, state, **OPTIONS[how])
    elif how == "full":
        state = torch.load(folder() / f"{name}.pt", weights_only=True)
        loaded(model, opt, state, full_state_dict=True)
    else:
        state = {"model": {}, "optimizer": {}}
        if rank == 0:
            state = torch.load(folder() / f"{name}.pt", weights_only=True)
        loaded(model, opt, state, full_state_dict=True, broadcast_from_rank0=True)


def one_loads_what_four_saved_and_trains_on(name, how):
    """A single process loads the checkpoint of four and continues."""
    _, optimizer, settings = SAVERS[name]
    settings = {key: value for key, value in settings.items() if key != "shard_work"}
    model = network()
    opt = OPTIMIZERS[optimizer](model.parameters(), **settings)
    load(name, how, model, opt)
    assert not any(isinstance(x, DTensor) for s in opt.state.values() for x in s.values())
    train(model, opt, range(SAVED, STEPS))
    same_weights(model, on_one_process(name))


@check(worlds=[2])
def two_load_what_one_saved(rank, world):
    """Load a plain state_dict under ``shard_work`` and into sharded parameters."""
    for kind, more in [("ddp", {"shard_work": True}), ("ddp", {}), ("fsdp", {})]:
        alone = network()
        first = OPTIMIZERS["SMI around SGD"](alone.parameters())
        train(alone, first, range(SAVED))
        # torch's optimizers share the tensors that they load.
        state = copy.deepcopy(parts(alone, first) if kind == "fsdp" else first.state_dict())
        model, place, places = parallel(kind, world)
        opt = OPTIMIZERS["SMI around SGD"](model.parameters(), **more)
        if kind == "ddp":
            model.module.load_state_dict(alone.state_dict())
            opt.load_state_dict(state)
        else:
            loaded(model, opt, state, full_state_dict=True)
        train(model, opt, range(SAVED, STEPS), place, places)
        train(alone, first, range(SAVED, STEPS))
        same_weights(plain(model), alone)


@check()
def a_share_that_one_rank_saved_is_refused_by_others(rank, world):
    model, place, places = parallel("ddp", world)
    opt = OPTIMIZERS["SMI around AdamW"](model.parameters(), shard_work=True)
    train(model, opt, range(2), place, places)
    saved = io.BytesIO()
    torch.save(opt.state_dict(), saved)
    everyones = [None] * world
    dist.all_gather_object(everyones, saved.getvalue())
    opt.load_state_dict(torch.load(io.BytesIO(everyones[rank]), weights_only=True))
    before = copy.deepcopy(opt.state_dict())
    with pytest.raises(ValueError, match="one rank's share of a history"):
        opt.load_state_dict(torch.load(io.BytesIO(everyones[rank - 1]), weights_only=True))
    after = opt.state_dict()
    for key, entries in before["state"].items():
        for entry, value in entries.items():
            assert torch.equal(sharding.local(after["state"][key][entry]), sharding.local(value))
    if rank == 0:
        (folder() / f"share-{world}.pt").write_bytes(saved.getvalue())


def completed(work):
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value
