"""NSF's step in kernels that compute every value where they read it.

One pass over memory is all where the scale asks for no length; otherwise the first pass moves the
moments and measures the update, and the second applies it.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

# θ, gradient and both moments: real, contiguous, of one dtype, on one device.
Tensors: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Powers of d stay below 2 to this in single precision, and what is multiplied by them finite.
MOST = 100.0


class Update(NamedTuple):
    """The numbers in NSF's equations that tensors share.

    Attributes:
        gain1: 1 - beta1, which single precision would round too soon; negative to maximise.
        gain2: 1 - beta2.
        power: 1 - 2p, so that u_p = u_1/2 d^power.
        shrink: what decoupled weight decay leaves of a parameter.
        like_adam: the update takes the length of u_1/2; otherwise of the momentum.
        scaled: it takes a length at all.
    """

    beta1: float
    gain1: float
    beta2: float
    gain2: float
    eps: float
    power: float
    shrink: float
    like_adam: bool
    scaled: bool

    @property
    def numbers(self) -> tuple[float, ...]:
        """Those that kernels read, in this order."""
        return self[:7]

    @property
    def passes(self) -> int:
        """How often memory is gone through: at p = 1/2 the update has Adam's length already."""
        return 2 if self.scaled and not (self.like_adam and self.power == 0) else 1


def step(tensors: list[Tensors], roots: list[float], rates: list[float], update: Update) -> None:
    """Take a step with all tensors.

    Args:
        tensors: all of one dtype, on one device, a CPU or a CUDA GPU.
        roots: 1 / sqrt(1 - beta2^t) of each.
        rates: -lr / (1 - beta1^t) of each.
        update: the rest.

    Raises:
        ImportError: on a GPU, if Triton is not installed.
    """
    if tensors[0][0].device.type == "cuda":
        from bandwise.optim._paths import nsf_triton as nsf_gpu

        # Kernels run on the current device, wherever their tensors are.
        with torch.cuda.device_of(tensors[0][0]):  # type: ignore[no-untyped-call]
            nsf_gpu.step(tensors, roots, rates, update)
    else:
        from bandwise.optim._paths import nsf_cpu

        nsf_cpu.step(tensors, roots, rates, update)
