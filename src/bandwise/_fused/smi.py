"""SMI's filter in kernels, for GPUs alone: a CPU's fast path is not bound by its loops."""

from __future__ import annotations

import torch
from torch import Tensor

DEVICES = {"cuda"}
DTYPES = {torch.float32, torch.bfloat16, torch.float16}


def step(
    pairs: list[tuple[Tensor, Tensor]],
    shape: tuple[int, int],
    place: int,
    alpha: float,
    beta: float,
    blend: bool,
) -> None:
    """Move the histories, and filter the gradients in place.

    Args:
        pairs: gradients and the histories of their half spectra, contiguous, on one GPU; the ones
            and the others of one dtype. A history is -1 where there is none yet.
        shape: of each gradient as a matrix.
        place: of the threshold among the sorted magnitudes of the full spectrum.
        alpha: the part of the filtered gradient.
        beta: decay of the histories.
        blend: whether gradients are changed at all.

    Raises:
        ImportError: Triton is not installed.
    """
    from bandwise._fused import smi_gpu

    smi_gpu.step(pairs, shape, place, alpha, beta, blend)
