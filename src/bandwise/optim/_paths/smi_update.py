"""What the paths through SMI's filter share: their arguments, the history, the mask, the blend."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import torch
from torch import Tensor

from bandwise.optim import _spectrum as spectrum
from bandwise.optim._spectrum import Grid, Layout

if TYPE_CHECKING:
    from bandwise.optim._paths.smi_sharded import Sharing

State: TypeAlias = dict[str, Any]

# A larger batch leaves a processor's cache, and costs more than it saves. On other devices a call
# costs more, and large batches only take memory.
_CPU_BATCH_NUMEL = 1 << 17
_BATCH_NUMEL = 1 << 25
# A rank's part of the gradients that are exchanged together. It is large enough for a network. It
# is small, because two such batches are under way at a time, each with nine times its size.
_SHARED_BATCH_NUMEL = 1 << 22


class Update(NamedTuple):
    """The numbers of Algorithm 1 in one step. All parameters of a group share them."""

    alpha: float
    beta: float
    q: float
    keeps_masks: bool  # for later steps or evaluations

    @property
    def blends(self) -> bool:
        """Whether gradients change. If not, the transforms' rounding must not touch them."""
        return self.alpha > 0 and self.q > 0


class Entry(NamedTuple):
    """One parameter's part of a step. Paths write the gradient and the history in place."""

    grad: Tensor
    grid: Grid  # the coefficients that this process has
    state: State
    history: Tensor  # H of the grid, NaN before the first finite gradient
    mask: Tensor | None  # one made before, that this step uses
    sharing: Sharing | None  # how processes share the work, if they do

    @classmethod
    def of(
        cls,
        param: Tensor,
        state: State,
        dtype: torch.dtype | None = None,
        layout: Layout = "matrix",
        sharing: Sharing | None = None,
    ) -> Entry:
        """The entry of a parameter that has a gradient. ``dtype`` is the history's.

        A state that has no history of this layout gets one. A mask in it is one to use.
        """
        grad = _writable(param)
        whole = Grid.of(param, layout)
        grid = whole if sharing is None else sharing.grid
        dtype = dtype or spectrum.computing_dtype(grad.dtype).to_real()
        if "smi_history" not in state or state["smi_history"].shape != whole.shape:
            state.pop("smi_mask", None)
            # NaN stands for Algorithm 1's "None". Whether the first gradient is finite stands on
            # the device, so the host cannot leave the history out without waiting for it.
            history = torch.full(grid.shape, math.nan, dtype=dtype, device=grad.device)
            state["smi_history"] = history if sharing is None else sharing.distributed(history)
        elif state["smi_history"].dtype != dtype:
            state["smi_history"] = bounded(state["smi_history"], dtype).to(dtype)
        history, mask = state["smi_history"], state.get("smi_mask")
        if sharing is not None:
            history, mask = history.to_local(), None if mask is None else mask.to_local()
        return cls(grad, grid, state, history, mask, sharing)

    def keep(self, mask: Tensor) -> None:
        """Keep the mask for later."""
        self.state["smi_mask"] = mask if self.sharing is None else self.sharing.distributed(mask)


# Filters a batch in place. Where processes exchange parts, it returns a coroutine.
Path: TypeAlias = Callable[[list[Entry], Update], Iterator[None] | None]


def batches(
    entries: list[Entry], path_of: Callable[[Entry], Path]
) -> Iterator[tuple[Path, list[Entry]]]:
    """Entries that can share a transform, with the path that takes them."""
    alike = defaultdict(list)
    for entry in entries:
        grad, makes_mask = entry.grad, entry.mask is None
        key = path_of(entry), entry.sharing, entry.grid, grad.dtype, grad.device, makes_mask
        alike[key].append(entry)
    for (path, sharing, grid, _, device, _), members in alike.items():
        if sharing is not None:
            limit = max(1, _SHARED_BATCH_NUMEL // sharing.room)
        else:
            most = _CPU_BATCH_NUMEL if device.type == "cpu" else _BATCH_NUMEL
            limit = max(1, most // (grid.n * grid.d))
        for start in range(0, len(members), limit):
            yield path, members[start : start + limit]


def _writable(param: Tensor) -> Tensor:
    """The gradient, in memory of its own if several of its elements share one place."""
    if hasattr(param, "device_mesh"):
        from bandwise.optim._paths import sharding

        sharding.aligned(param)
    grad = cast(Tensor, param.grad)
    expanded = any(n > 1 and s == 0 for n, s in zip(grad.shape, grad.stride(), strict=True))
    if expanded or grad.is_inference():
        param.grad = grad = grad.clone()
    return grad


def mark_missing(history: Tensor) -> None:
    """Put NaN where an older version wrote -1: where a history has not begun yet."""
    part = history.to_local() if hasattr(history, "to_local") else history
    part.masked_fill_(part < 0, math.nan)


def averaged(H: Tensor, M: Tensor, beta: float) -> Tensor:
    """Algorithm 1, lines 15 to 19: H after magnitudes M. H is NaN where there is none yet."""
    return torch.where(H.isnan(), M, H).lerp_(M, 1 - beta)


def placed(value: Tensor, param: Tensor, sharing: Sharing | None) -> Tensor:
    """A copy of a saved history or mask, for a parameter of this process."""
    if sharing is not None:
        copy: Tensor = sharing.placed(value, param.device)
    else:
        whole = value.full_tensor() if hasattr(value, "full_tensor") else value
        copy = whole.to(param.device, copy=True, memory_format=torch.contiguous_format)
    if copy.is_floating_point():  # a history, not a mask
        mark_missing(copy)
    return copy


def bounded(H: Tensor, dtype: torch.dtype) -> Tensor:
    """H, at most the largest number of a dtype: infinity would be NaN in the next average."""
    largest = torch.finfo(dtype).max
    return H.clamp(max=largest) if largest < torch.finfo(H.dtype).max else H


def store(H: Tensor, history: Tensor) -> None:
    """Write H to where the state holds it, unless it is there already."""
    if history.data_ptr() != H.data_ptr():
        history.copy_(bounded(H, history.dtype))


def stacked(tensors: list[Tensor]) -> Tensor:
    """Tensors in one: (n, d) each to (batch, n, d). A tensor that is alone is not copied."""
    return tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)


def move_histories(entries: list[Entry], M: Tensor, finite: Tensor | None, beta: float) -> Tensor:
    """Move the histories on by magnitudes, and return them: (batch, n, m).

    Histories stay where ``finite``, (batch, 1, 1), is False. ``None``: all magnitudes are finite.
    """
    histories = [entry.history for entry in entries]
    H = stacked(histories).to(M.dtype)
    if finite is None and spectrum.at_hand(H) and not H[:, 0, 0].isnan().any():
        # In the memory of the history itself, where that has the right dtype and is alone.
        H.lerp_(M, 1 - beta)
    else:
        H = averaged(H, M if finite is None else torch.where(finite, M, H), beta)
    for history, new in zip(histories, H, strict=True):
        store(new, history)
    return H


def keep_masks(entries: list[Entry], removed: Tensor, update: Update) -> None:
    """Keep new masks, if they are used later. They are True where ``removed`` is 0."""
    if update.keeps_masks:
        for entry, mask in zip(entries, removed == 0, strict=True):
            entry.keep(mask)


def removed_before(entries: list[Entry], out: Tensor) -> Tensor:
    """1 where the masks that were made before remove a coefficient, 0 elsewhere."""
    masks = [entry.mask for entry in entries if entry.mask is not None]
    return torch.logical_not(stacked(masks), out=out)


def blended(G_hat: Tensor, removed: Tensor, alpha: float) -> Tensor:
    """Algorithm 1, lines 23 and 29, before the inverse transform. Overwrites both tensors.

    Mask and blend are one multiplication: a removed coefficient is left with 1 - α of itself.
    """
    return G_hat.mul_(torch.add(removed.new_ones(()), removed, alpha=-alpha, out=removed))
