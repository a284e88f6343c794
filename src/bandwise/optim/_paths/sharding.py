"""The spectrum of a gradient whose parts lie on many devices.

Rows are transformed where they lie whole. An exchange then gives every rank whole columns, and
those are transformed: the rank has its columns of the spectrum, and its columns of the history. The
way back is the same. No rank ever holds more of a matrix than its share.

What communicates is a coroutine: it yields while an exchange is under way, so that
``interleaved`` goes on with another batch meanwhile. All ranks call the same ones in the same
order.
"""

from __future__ import annotations

import functools
import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TypeAlias, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.placement_types import Placement

from bandwise.optim import _spectrum as spectrum

Exchange: TypeAlias = Generator[None, None, Tensor]
# The part of a tensor that a rank holds: from where to where in every dimension.
Box: TypeAlias = tuple[tuple[int, int], ...]
# By rank of a group.
Boxes: TypeAlias = tuple[Box, ...]


def interleaved(works: Iterable[Iterator[None]], at_once: int = 2) -> None:
    """Run coroutines to their ends: while one waits for an exchange the others go on."""
    waiting = iter(works)
    running = deque(itertools.islice(waiting, at_once))
    while running:
        work = running.popleft()
        try:
            next(work)
            running.append(work)
        except StopIteration:
            running.extend(itertools.islice(waiting, 1))


def aligned(param: Tensor) -> None:
    """Lay the gradient of a sharded parameter out as the parameter, if it comes otherwise."""
    grad = param.grad
    if (
        isinstance(param, DTensor)
        and isinstance(grad, DTensor)
        and grad.placements != param.placements
    ):
        param.grad = grad.redistribute(placements=param.placements)


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that lies here; of a plain tensor, all of it."""
    if not isinstance(tensor, DTensor):
        return tensor
    part = tensor.to_local()
    # One that an exchange has not filled yet.
    return cast(Tensor, part.wait()) if hasattr(part, "wait") else part


def sum_lengths(lengths: list[Tensor], params: list[Tensor]) -> None:
    """From the norms of the parts here, make those of the whole, in the list.

    One exchange for all tensors that are sharded over the same dimensions of a mesh.
    """
    alike = defaultdict(list)
    for i, param in enumerate(params):
        if isinstance(param, DTensor):
            alike[param.device_mesh, _sharding(param.placements)].append(i)
    for (mesh, dimensions), members in alike.items():
        # Squares leave single precision.
        squares = torch.stack([lengths[i] for i in members]).double().square()
        for dimension in dimensions:
            dist.all_reduce(squares, group=mesh.get_group(dimension))
        for i, length in zip(members, squares.sqrt().to(lengths[0].dtype), strict=True):
            lengths[i] = length


def _sharding(placements: Iterable[Placement]) -> tuple[int, ...]:
    """The dimensions of the mesh that shard a tensor."""
    return tuple(i for i, placement in enumerate(placements) if hasattr(placement, "dim"))


class Layouts:
    """The layouts of an optimizer's parameters.

    Args:
        shard_work: whether plain parameters, of which every rank has all, are laid out too: over
            all processes, or over a mesh.
    """

    def __init__(self, shard_work: bool | DeviceMesh) -> None:
        self._shard_work = shard_work
        self._layouts: dict[Any, Layout] = {}
        self._groups: dict[tuple[int, ...], dist.ProcessGroup] = {}
        self._worlds: dict[str, DeviceMesh] = {}

    def of(self, param: Tensor) -> Layout:
        """The layout of a parameter's gradient and spectrum."""
        if isinstance(param, DTensor):
            mesh, placements = param.device_mesh, tuple(param.placements)
        else:
            mesh, placements = self._mesh(param.device.type), None
        key = mesh, placements, param.shape, param.is_complex()
        if key not in self._layouts:
            self._layouts[key] = Layout(*key, self._group)
        return self._layouts[key]

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
        """A group of the ranks of several mesh dimensions; of one, the mesh has it."""
        if ranks not in self._groups:
            self._groups[ranks] = dist.new_group(list(ranks), use_local_synchronization=True)
        return self._groups[ranks]


class Layout:
    """Where the parts of a gradient lie, and those of its spectrum.

    Args:
        mesh: the devices.
        placements: of the gradient on them; ``None``: all of it is everywhere, and so will be the
            result.
        shape: the gradient's.
        is_complex: whether it is.
        group_of: makes a group of ranks.

    Attributes:
        mesh, placements: of the history, as a DTensor.
        room: the values of a gradient that a rank must have room for.
    """

    def __init__(
        self,
        mesh: DeviceMesh,
        placements: tuple[Placement, ...] | None,
        shape: torch.Size,
        is_complex: bool,
        group_of: Callable[[tuple[int, ...]], dist.ProcessGroup],
    ) -> None:
        here = mesh.get_coordinate()
        if here is None:
            raise ValueError(f"shard_work must be a mesh that has this rank in it, got {mesh}")
        given = placements or (Shard(0),) * mesh.ndim
        shared = _sharding(given)
        members = {
            int(mesh.mesh[at]): at
            for at in itertools.product(*map(range, mesh.mesh.shape))
            if all(at[i] == here[i] for i in range(mesh.ndim) if i not in shared)
        }
        self.group = None
        if len(shared) == 1:
            self.group = mesh.get_group(shared[0])
        elif shared:
            self.group = group_of(tuple(sorted(members)))
        ranks = dist.get_process_group_ranks(self.group) if self.group else list(members)
        coordinates = [members[rank] for rank in ranks]
        self._me = coordinates.index(tuple(here))

        n, d = spectrum.matrix_shape(shape)
        n, m = spectrum.spectrum_shape(shape, is_complex)
        self.mesh = mesh
        self.placements, by_rows = (
            tuple(Shard(dim) if i in shared else Replicate() for i in range(mesh.ndim))
            for dim in (1, 0)
        )
        # What spectrum's functions ask of the matrix is its shape and whether it is complex.
        dtype = torch.complex64 if is_complex else torch.float32
        self._matrix = torch.empty(n, d, dtype=dtype, device="meta")

        def cut(shape: tuple[int, ...], placements: tuple[Placement, ...]) -> Boxes:
            return tuple(_box(shape, mesh, placements, at) for at in coordinates)

        everything = tuple((0, size) for size in shape)
        self._given = cut(shape, given)
        if len(shape) > 1 and all(box[1:] == everything[1:] for box in self._given):
            rows = tuple(box[:1] for box in self._given)
        else:
            rows = cut((n,), by_rows)
        # A vector is the one row of its matrix.
        self._rows = tuple(
            (*row, *everything[1:]) if len(shape) > 1 else tuple((d * lo, d * hi) for lo, hi in row)
            for row in rows
        )
        self._half_rows = tuple((*row, (0, m)) for row in rows)
        self._columns = cut((n, m), self.placements)
        self._everywhere = placements is None
        self._wanted = (everything,) * len(ranks) if self._everywhere else self._given
        self.room = shape.numel() if self._everywhere else -(-shape.numel() // len(ranks))

    @property
    def _first(self) -> int:
        return self._columns[self._me][1][0]

    # The gradient.

    def rows(self, grads: list[Tensor]) -> Exchange:
        """The rows of gradients that this rank transforms: (batch, rows, d)."""
        if self._everywhere:
            slices = tuple(slice(*ends) for ends in self._rows[self._me])
            part = torch.stack([grad[slices] for grad in grads])
        else:
            parts = torch.stack([local(grad) for grad in grads])
            extent = tuple(high - low for low, high in self._given[self._me])
            if parts.shape[1:] != extent:
                raise RuntimeError(
                    f"SMI cannot tell which part of a gradient lies here: its shape is "
                    f"{tuple(parts.shape[1:])}, and by its placements {extent}"
                )
            part = yield from self._exchanged(parts, self._given, self._rows)
        count, d = self._half_rows[self._me][0], self._matrix.shape[1]
        return part.reshape(len(grads), count[1] - count[0], d)

    def spread(self, rows: Tensor) -> Exchange:
        """The inverse of ``rows``: what this rank has of the gradients, (batch, …)."""
        shape = [hi - lo for lo, hi in self._rows[self._me]]
        parts = rows.reshape(len(rows), *shape)
        return (yield from self._exchanged(parts, self._rows, self._wanted))

    # The spectrum, of which this rank has whole columns: (batch, n, columns).

    def transform(self, rows: Tensor) -> Exchange:
        """The spectrum of the matrices."""
        fft: Any = torch.fft.fft if rows.is_complex() else torch.fft.rfft
        m = self._half_rows[self._me][1][1]
        dtype = torch.promote_types(rows.dtype, torch.complex32)
        # Not every library transforms nothing.
        half = fft(rows) if rows.numel() else rows.new_empty((*rows.shape[:-1], m), dtype=dtype)
        part = yield from self._exchanged(half, self._half_rows, self._columns)
        return torch.fft.fft(part, dim=-2) if part.numel() else part

    def inverse(self, part: Tensor, like: Tensor) -> Exchange:
        """The rows that a spectrum stands for, ``like`` those it was made of."""
        part = torch.fft.ifft(part, dim=-2) if part.numel() else part
        half = yield from self._exchanged(part, self._columns, self._half_rows)
        if not like.numel():
            return like
        fft: Callable[..., Tensor] = torch.fft.ifft if like.is_complex() else torch.fft.irfft
        return fft(half, n=like.shape[-1])

    def magnitude(self, part: Tensor) -> Tensor:
        """``spectrum.magnitude``."""
        return spectrum.magnitude(part, self._matrix, self._first)

    def finite(self, M: Tensor) -> Exchange:
        """Which matrices have finite magnitudes on all ranks: (batch, 1, 1)."""
        broken = M.isfinite().logical_not_().flatten(1).any(1).int()
        yield from self._summed(broken)
        return (broken == 0)[:, None, None]

    def threshold(self, magnitudes: Tensor, q: float) -> Exchange:
        """``spectrum.threshold``, the same value on all ranks: (batch, 1, 1).

        Not negative numbers are ordered as the integers of the same bits. The threshold's are found
        a byte at a time: every rank counts how many of its values are below each candidate.
        """
        values = spectrum.ordered(magnitudes, self._matrix, self._first)
        integer = torch.int64 if values.dtype == torch.float64 else torch.int32
        keys = values.view(integer)
        place = spectrum.order(q, self._matrix.numel())
        found = keys.new_zeros(len(keys), 1)
        largest = torch.iinfo(integer).max
        for shift in reversed(range(0, 8 * keys.itemsize, 8)):
            digits = torch.arange(1, min(255, largest >> shift) + 1, dtype=integer)
            steps = digits.to(keys.device, non_blocking=True) << shift
            below = torch.searchsorted(keys, found + steps)
            yield from self._summed(below)
            found += (below <= place).sum(-1, keepdim=True, dtype=integer) << shift
        return found.view(values.dtype)[..., None]

    # The state.

    def distributed(self, columns: Tensor) -> DTensor:
        """A rank's columns of a history or mask as a part of all of it."""
        n, m = self._matrix.shape[0], self._half_rows[0][1][1]
        shape, stride = torch.Size((n, m)), (m, 1)
        return DTensor.from_local(
            columns, self.mesh, self.placements, run_check=False, shape=shape, stride=stride
        )

    def placed(self, value: Tensor, device: torch.device) -> DTensor:
        """A history or mask, however it comes, in this layout and in memory of its own."""
        if (
            isinstance(value, DTensor)
            and value.device_mesh == self.mesh
            and tuple(value.placements) == self.placements
        ):
            part = local(value)
        else:
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            part = whole[tuple(slice(*ends) for ends in self._columns[self._me])]
        return self.distributed(part.to(device, copy=True).contiguous())

    # Communication.

    def _summed(self, counts: Tensor) -> Generator[None]:
        """Sum over the ranks, in place."""
        if self.group is None:
            return
        work = dist.all_reduce(counts, group=self.group, async_op=True)
        yield
        work.wait()

    def _exchanged(self, parts: Tensor, source: Boxes, target: Boxes) -> Exchange:
        """A rank's box of the target, from the ranks that have it in their boxes of the source.

        Args:
            parts: (batch, …, …), with this rank's box of each member of the batch.
            source: which boxes the ranks have.
            target: which they are to have.
        """
        if source == target:
            return parts
        sent, received = _plan(source, target, self._me)
        cuts = [parts[(slice(None), *part)].flatten() for part in sent]
        # As bytes: no backend of a group knows every dtype.
        outgoing = torch.cat(cuts).view(torch.uint8)
        shape = [hi - lo for lo, hi in target[self._me]]
        result = parts.new_empty(len(parts), *shape)
        places = [result[(slice(None), *part)] for part in received]
        sizes = [place.numel() * parts.itemsize for place in places]
        incoming = outgoing.new_empty(sum(sizes))
        work = dist.all_to_all_single(
            incoming,
            outgoing,
            sizes,
            [cut.numel() * parts.itemsize for cut in cuts],
            group=self.group,
            async_op=True,
        )
        del cuts
        yield
        work.wait()
        for place, piece in zip(places, torch.split(incoming, sizes), strict=True):
            place.copy_(piece.view(parts.dtype).view(place.shape))
        return result


def check_share(value: Tensor) -> None:
    """Raise ValueError if a tensor is a share that another rank saved, or the others' are lost."""
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


def _box(
    shape: tuple[int, ...], mesh: DeviceMesh, placements: tuple[Placement, ...], at: tuple[int, ...]
) -> Box:
    """What the rank at a coordinate of the mesh has of a tensor; cut as ``torch.chunk`` does."""
    box = [(0, size) for size in shape]
    # A strided shard (FSDP over tensor parallel) is cut after those to its right.
    for i in sorted(range(mesh.ndim), key=lambda i: hasattr(placements[i], "split_factor")):
        if hasattr(placements[i], "dim"):
            dim = cast(Shard, placements[i]).dim
            low, high = box[dim]
            step = -(-(high - low) // mesh.size(i))
            box[dim] = (min(low + at[i] * step, high), min(low + (at[i] + 1) * step, high))
    return tuple(box)


@functools.lru_cache(maxsize=1024)
def _plan(
    source: Boxes, target: Boxes, me: int
) -> tuple[list[tuple[slice, ...]], list[tuple[slice, ...]]]:
    """What a rank sends to every rank, within its box; where what comes from each goes."""
    sent = [_overlap(box, source[me]) for box in target]
    received = [_overlap(box, target[me]) for box in source]
    return sent, received


def _overlap(other: Box, box: Box) -> tuple[slice, ...]:
    """Where two boxes overlap, counted from the second's corner."""
    ends = [
        (max(low, lo) - low, min(high, hi) - low)
        for (lo, hi), (low, high) in zip(other, box, strict=True)
    ]
    if any(lo >= hi for lo, hi in ends):
        return (slice(0, 0),) * len(box)
    return tuple(slice(lo, hi) for lo, hi in ends)
