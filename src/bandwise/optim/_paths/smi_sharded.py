"""SMI's filter by all processes that share gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch

from bandwise.optim import _spectrum as spectrum
from bandwise.optim._paths import sharding
from bandwise.optim._paths.smi_layout import Layout
from bandwise.optim._paths.smi_update import (
    Entry,
    Update,
    blended,
    keep_masks,
    move_histories,
    removed_before,
)


def step(entries: list[Entry], update: Update) -> Iterator[None]:
    """``smi_batched.step`` for gradients of one layout: a coroutine, see ``sharding``.

    G are the rows that this rank transforms. It has its columns of spectrum and history.
    """
    layout = cast(Layout, entries[0].layout)
    rows = yield from layout.rows([entry.grad for entry in entries])
    G = rows.to(spectrum.computing_dtype(rows.dtype))
    G_hat = yield from layout.transform(G)
    M = layout.grid.magnitude(G_hat)
    finite = yield from layout.finite(M)

    H = move_histories(entries, M, finite, update.beta)
    if entries[0].mask is None:
        tau = yield from layout.threshold(H, update.q)
        removed = torch.lt(H, tau, out=M)
        keep_masks(entries, removed, update)
    else:
        removed = removed_before(entries, out=M)
    if not update.blends:
        return
    results = yield from layout.inverse(blended(G_hat, removed, update.alpha), G)
    results = torch.where(finite, results, G).to(rows.dtype)
    results = yield from layout.spread(results)
    for entry, result in zip(entries, results, strict=True):
        sharding.local(entry.grad).copy_(result)
