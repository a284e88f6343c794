"""What NSF's kernels for a CPU and for a GPU share."""

from __future__ import annotations

from bandwise.optim._paths.nsf_update import Update

# Powers of d are cut off at 2 to this, so that single precision holds their products.
MOST = 100.0


def shared_numbers(update: Update) -> list[float]:
    """The numbers that kernels read: beta1, gain1, beta2, gain2, eps, power, shrink.

    gain1 is 1 - beta1, or its negative to maximise. gain2 is 1 - beta2. Both are computed here,
    as single precision would round them.
    """
    gain1 = update.beta1 - 1 if update.maximize else 1 - update.beta1
    gain2 = 1 - update.beta2
    return [update.beta1, gain1, update.beta2, gain2, update.eps, update.power, update.shrink]
