"""SMI's filter by all processes that share gradients.

A rank transforms rows that it has as a whole. An exchange then gives every rank whole columns, and
the rank transforms these. It then has its columns of the spectrum, as of the history. The way back
is the same. No rank holds more of a matrix than its share at any time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement

from bandwise.optim import _spectrum as spectrum
from bandwise.optim._paths import sharding
from bandwise.optim._paths.sharding import Boxes, Exchange, Peers
from bandwise.optim._paths.smi_update import (
    Entry,
    Update,
    blended,
    keep_masks,
    move_histories,
    removed_before,
)
from bandwise.optim._spectrum import Grid, Layout


def step(entries: list[Entry], update: Update) -> Iterator[None]:
    """``smi_batched.step`` for gradients that are shared alike: a coroutine, see ``sharding``.

    G are the rows that this rank transforms. It has its columns of spectrum and history.
    """
    sharing = cast(Sharing, entries[0].sharing)
    rows = yield from sharing.rows([entry.grad for entry in entries])
    G = rows.to(spectrum.computing_dtype(rows.dtype))
    G_hat = yield from sharing.transform(G)
    M = sharing.grid.magnitude(G_hat)
    finite = yield from sharing.finite(M)

    H = move_histories(entries, M, finite, update.beta)
    if entries[0].mask is None:
        tau = yield from sharing.threshold(H, update.q)
        removed = torch.lt(H, tau, out=M)
        keep_masks(entries, removed, update)
    else:
        removed = removed_before(entries, out=M)
    if not update.blends:
        return
    results = yield from sharing.inverse(blended(G_hat, removed, update.alpha), G)
    results = torch.where(finite, results, G).to(rows.dtype)
    results = yield from sharing.spread(results)
    for entry, result in zip(entries, results, strict=True):
        part = sharding.local(entry.grad)
        part.copy_(result.reshape(part.shape))


class Sharings:
    """How ranks share each of an optimizer's parameters. ``shard_work`` is ``SMI``'s."""

    def __init__(self, shard_work: bool | DeviceMesh) -> None:
        self._shard_work = shard_work
        self._sharings: dict[Any, Sharing] = {}
        self._groups: dict[tuple[int, ...], dist.ProcessGroup] = {}
        self._worlds: dict[str, DeviceMesh] = {}

    def of(self, param: Tensor, layout: Layout = "matrix") -> Sharing:
        """How ranks share a parameter's gradient and spectrum."""
        if isinstance(param, DTensor):
            mesh, placements = param.device_mesh, tuple(param.placements)
        else:
            mesh, placements = self._mesh(param.device.type), None
        grid = Grid.of(param, layout)
        key = mesh, placements, param.shape, grid
        if key not in self._sharings:
            self._sharings[key] = Sharing(mesh, placements, param.shape, grid, self._group)
        return self._sharings[key]

    def _mesh(self, device_type: str) -> DeviceMesh:
        if isinstance(self._shard_work, DeviceMesh):
            return self._shard_work
        if not dist.is_initialized():
            raise RuntimeError(
                "shard_work=True needs the processes that share the work: call "
                "torch.distributed.init_process_group first"
            )
        if device_type not in self._worlds:
            world = cast(dist.ProcessGroup, dist.group.WORLD)
            self._worlds[device_type] = DeviceMesh.from_group(world, device_type)
        return self._worlds[device_type]

    def _group(self, ranks: tuple[int, ...]) -> dist.ProcessGroup:
        """A group over several dimensions of a mesh. The mesh has those of one dimension."""
        if ranks not in self._groups:
            self._groups[ranks] = dist.new_group(list(ranks), use_local_synchronization=True)
        return self._groups[ranks]


class Sharing:
    """Where the parts of a gradient lie, and the parts of its spectrum.

    ``placements`` are the gradient's. ``None``: every rank has all of the gradient, and is to have
    all of the result.
    """

    grid: Grid  # the columns of the spectrum that this rank has
    room: int  # how many values of a gradient a rank must have room for

    def __init__(
        self,
        mesh: DeviceMesh,
        placements: tuple[Placement, ...] | None,
        shape: torch.Size,
        whole: Grid,
        group_of: Callable[[tuple[int, ...]], dist.ProcessGroup],
    ) -> None:
        here = mesh.get_coordinate()
        if here is None:
            raise ValueError(f"shard_work must be a mesh that has this rank in it, got {mesh}")
        given = placements or (Shard(0),) * mesh.ndim
        shared = sharding.sharding_dimensions(given)
        members = {
            int(mesh.mesh[at]): at
            for at in itertools.product(*map(range, mesh.mesh.shape))
            if all(at[i] == here[i] for i in range(mesh.ndim) if i not in shared)
        }
        group = None
        if len(shared) == 1:
            group = mesh.get_group(shared[0])
        elif shared:
            group = group_of(tuple(sorted(members)))
        ranks = dist.get_process_group_ranks(group) if group else list(members)
        coordinates = [members[rank] for rank in ranks]
        self._peers = Peers(group, me := coordinates.index(tuple(here)))

        self._mesh, self._whole = mesh, whole
        self._placements, by_rows = (
            tuple(Shard(dim) if i in shared else Replicate() for i in range(mesh.ndim))
            for dim in (1, 0)
        )

        def cut(shape: tuple[int, ...], placements: tuple[Placement, ...]) -> Boxes:
            return tuple(sharding.box_of(shape, mesh, placements, at) for at in coordinates)

        everything = tuple((0, size) for size in shape)
        self._given = cut(shape, given)
        if len(shape) == 1:  # one row
            everything = ((0, 1), *everything)
            self._given = tuple(((0, 1), *box) for box in self._given)
        firsts = self._given
        if any(box[1:] != everything[1:] for box in firsts):
            firsts = cut((everything[0][1],), by_rows)
        self._rows = tuple((box[0], *everything[1:]) for box in firsts)
        # An index of the first dimension stands for so many rows of the matrix.
        each, m = whole.n // everything[0][1], whole.shape[1]
        self._half_rows = tuple(((low * each, high * each), (0, m)) for (low, high), *_ in firsts)
        self._columns = cut(whole.shape, self._placements)
        self._everywhere = placements is None
        self._wanted = (everything,) * len(ranks) if self._everywhere else self._given
        self.grid = whole._replace(columns=range(*self._columns[me][1]))
        self.room = shape.numel() if self._everywhere else -(-shape.numel() // len(ranks))

    # The gradient.

    def rows(self, grads: list[Tensor]) -> Exchange:
        """The rows of gradients that this rank transforms: (batch, rows, d)."""
        me = self._peers.me
        here = [sharding.local(grad) for grad in grads]
        if here[0].ndim == 1:
            here = [part[None] for part in here]
        if self._everywhere:
            slices = tuple(slice(*ends) for ends in self._rows[me])
            parts = torch.stack([part[slices] for part in here])
        else:
            parts = torch.stack(here)
            extent = tuple(high - low for low, high in self._given[me])
            if parts.shape[1:] != extent:
                raise RuntimeError(
                    f"SMI cannot tell which part of a gradient lies here: its shape is "
                    f"{tuple(parts.shape[1:])}, and by its placements {extent}"
                )
            parts = yield from self._peers.exchanged(parts, self._given, self._rows)
        first, last = self._half_rows[me][0]
        return parts.reshape(len(grads), last - first, self.grid.d)

    def spread(self, rows: Tensor) -> Exchange:
        """The inverse of ``rows``: this rank's parts of the gradients, (batch, …)."""
        shape = [hi - lo for lo, hi in self._rows[self._peers.me]]
        parts = rows.reshape(len(rows), *shape)
        return (yield from self._peers.exchanged(parts, self._rows, self._wanted))

    # The spectrum, of which this rank has whole columns: (batch, n, columns).

    def transform(self, rows: Tensor) -> Exchange:
        """The spectrum of the matrices."""
        fft: Any = torch.fft.fft if rows.is_complex() else torch.fft.rfft
        dtype, m = torch.promote_types(rows.dtype, torch.complex32), self._whole.shape[1]
        # Some FFT libraries refuse an empty tensor.
        half = fft(rows) if rows.numel() else rows.new_empty((*rows.shape[:-1], m), dtype=dtype)
        part = yield from self._peers.exchanged(half, self._half_rows, self._columns)
        return torch.fft.fft(part, dim=-2) if part.numel() else part

    def inverse(self, part: Tensor, like: Tensor) -> Exchange:
        """The rows that have the given spectrum. ``like`` is what ``transform`` was given."""
        part = torch.fft.ifft(part, dim=-2) if part.numel() else part
        half = yield from self._peers.exchanged(part, self._columns, self._half_rows)
        if not like.numel():
            return like
        fft: Callable[..., Tensor] = torch.fft.ifft if like.is_complex() else torch.fft.irfft
        return fft(half, n=like.shape[-1])

    def finite(self, M: Tensor) -> Exchange:
        """Which matrices have finite magnitudes on all ranks: (batch, 1, 1)."""
        broken = M.isfinite().logical_not_().flatten(1).any(1).int()
        yield from self._peers.summed(broken)
        return (broken == 0)[:, None, None]

    def threshold(self, M: Tensor, q: float) -> Exchange:
        """``Grid.threshold`` of all columns, the same value on all ranks: (batch, 1, 1).

        Numbers that are not negative have the same order as the integers of the same bits. The
        threshold's integer is found a byte at a time: every rank counts how many of its values are
        below each candidate.
        """
        values = self.grid.ordered(M)
        integer = torch.int64 if values.dtype == torch.float64 else torch.int32
        keys = values.view(integer)
        place = self.grid.place(q)
        found = keys.new_zeros(len(keys), 1)
        largest = torch.iinfo(integer).max
        for shift in reversed(range(0, 8 * keys.itemsize, 8)):
            digits = torch.arange(1, min(255, largest >> shift) + 1, dtype=integer)
            steps = digits.to(keys.device, non_blocking=True) << shift
            below = torch.searchsorted(keys, found + steps)
            yield from self._peers.summed(below)
            found += (below <= place).sum(-1, keepdim=True, dtype=integer) << shift
        return found.view(values.dtype)[..., None]

    # The state.

    def distributed(self, columns: Tensor) -> DTensor:
        """A rank's columns of a history or a mask as a part of the whole."""
        n, m = self._whole.shape
        shape, stride = torch.Size((n, m)), (m, 1)
        return DTensor.from_local(
            columns, self._mesh, self._placements, run_check=False, shape=shape, stride=stride
        )

    def placed(self, value: Tensor, device: torch.device) -> DTensor:
        """A history or a mask, however it is shared, shared so and in memory of its own."""
        if (
            isinstance(value, DTensor)
            and value.device_mesh == self._mesh
            and tuple(value.placements) == self._placements
        ):
            part = sharding.local(value)
        else:
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            part = whole[:, self.grid.columns.start : self.grid.columns.stop]
        return self.distributed(part.to(device, copy=True).contiguous())


def check_share(value: Tensor) -> None:
    """Raise ValueError if a tensor is a share that another rank saved: other shares are lost."""
    if not isinstance(value, DTensor):
        return
    saved = value.device_mesh.get_coordinate()
    ranks = value.device_mesh.mesh
    if dist.is_initialized() and int(ranks.max()) < dist.get_world_size():
        here = (ranks == dist.get_rank()).nonzero()
        if saved is not None and [list(saved)] == here.tolist():
            return
    raise ValueError(
        "the state_dict holds one rank's share of a history, not all of it: save with "
        "torch.distributed.checkpoint, or what get_optimizer_state_dict returns with "
        "StateDictOptions(full_state_dict=True)"
    )
