"""Tensors whose parts lie on many devices, and the exchange of parts between processes.

A function that communicates is a coroutine. It yields while an exchange is under way, so that
``interleaved`` continues another batch meanwhile. All ranks call the same functions in the same
order.
"""

import functools
import itertools
from collections import defaultdict, deque
from collections.abc import Generator, Iterable, Iterator
from typing import NamedTuple, TypeAlias, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.placement_types import Placement

Exchange: TypeAlias = Generator[None, None, Tensor]
# The part of a tensor that a rank holds: from where to where in every dimension.
Box: TypeAlias = tuple[tuple[int, int], ...]
# One box for each rank of a group.
Boxes: TypeAlias = tuple[Box, ...]


def interleaved(works: Iterable[Iterator[None]], at_once: int = 2) -> None:
    """Run coroutines to their ends. While one waits for an exchange, another continues."""
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
    """Lay out the gradient of a sharded parameter as the parameter, if it differs."""
    grad = param.grad
    if (
        isinstance(param, DTensor)
        and isinstance(grad, DTensor)
        and grad.placements != param.placements
    ):
        param.grad = grad.redistribute(placements=param.placements)


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor on this device. A plain tensor lies here as a whole."""
    if not isinstance(tensor, DTensor):
        return tensor
    part = tensor.to_local()
    # An exchange may still be filling the part.
    return cast(Tensor, part.wait()) if hasattr(part, "wait") else part


def sum_lengths(lengths: list[Tensor], params: list[Tensor]) -> None:
    """Turn the norms of parts into those of whole tensors, in the list.

    All tensors that are sharded over the same dimensions of a mesh take one exchange.
    """
    alike = defaultdict(list)
    for i, param in enumerate(params):
        if isinstance(param, DTensor):
            alike[param.device_mesh, sharding_dimensions(param.placements)].append(i)
    for (mesh, dimensions), members in alike.items():
        # Squares can leave the range of single precision.
        squares = torch.stack([lengths[i] for i in members]).double().square()
        for dimension in dimensions:
            dist.all_reduce(squares, group=mesh.get_group(dimension))
        for i, length in zip(members, squares.sqrt().to(lengths[0].dtype), strict=True):
            lengths[i] = length


def sharding_dimensions(placements: Iterable[Placement]) -> tuple[int, ...]:
    """The dimensions of a mesh that shard a tensor."""
    return tuple(i for i, placement in enumerate(placements) if hasattr(placement, "dim"))


def box_of(
    shape: tuple[int, ...], mesh: DeviceMesh, placements: tuple[Placement, ...], at: tuple[int, ...]
) -> Box:
    """The part of a tensor that the rank at a coordinate of the mesh has, as ``torch.chunk`` cuts.

    Args:
        shape: of the whole tensor.
        mesh: the devices.
        placements: of the tensor on the mesh.
        at: the coordinate.
    """
    box = [(0, size) for size in shape]
    # A strided shard (FSDP over tensor parallel) is cut after those to its right.
    for i in sorted(range(mesh.ndim), key=lambda i: hasattr(placements[i], "split_factor")):
        if hasattr(placements[i], "dim"):
            dim = cast(Shard, placements[i]).dim
            low, high = box[dim]
            step = -(-(high - low) // mesh.size(i))
            box[dim] = (min(low + at[i] * step, high), min(low + (at[i] + 1) * step, high))
    return tuple(box)


class Peers(NamedTuple):
    """The ranks that have the parts of a tensor between them.

    Attributes:
        group: theirs; ``None``: this rank has all of the tensor.
        me: this rank's number among them.
    """

    group: dist.ProcessGroup | None
    me: int

    def summed(self, counts: Tensor) -> Generator[None]:
        """Sum over the ranks, in place."""
        if self.group is None:
            return
        work = dist.all_reduce(counts, group=self.group, async_op=True)
        yield
        work.wait()

    def exchanged(self, parts: Tensor, source: Boxes, target: Boxes) -> Exchange:
        """The rank's box of the target, put together from what all ranks have.

        Args:
            parts: (batch, …, …), this rank's box of the source for each member of the batch.
            source: the boxes that the ranks have.
            target: the boxes that the ranks are to have.
        """
        if source == target:
            return parts
        sent, received = _plan(source, target, self.me)
        cuts = [parts[(slice(None), *part)].flatten() for part in sent]
        # Bytes, since no backend of a group knows every dtype.
        outgoing = torch.cat(cuts).view(torch.uint8)
        shape = [hi - lo for lo, hi in target[self.me]]
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


@functools.lru_cache(maxsize=1024)
def _plan(
    source: Boxes, target: Boxes, me: int
) -> tuple[list[tuple[slice, ...]], list[tuple[slice, ...]]]:
    """The slices that a rank sends to each rank, and those that it receives from each."""
    sent = [_overlap(box, source[me]) for box in target]
    received = [_overlap(box, target[me]) for box in source]
    return sent, received


def _overlap(other: Box, box: Box) -> tuple[slice, ...]:
    """The overlap of two boxes, counted from the corner of the second."""
    ends = [
        (max(low, lo) - low, min(high, hi) - low)
        for (lo, hi), (low, high) in zip(other, box, strict=True)
    ]
    if any(lo >= hi for lo, hi in ends):
        return (slice(0, 0),) * len(box)
    return tuple(slice(lo, hi) for lo, hi in ends)
