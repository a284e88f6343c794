"""Algorithm 1 of the SMI paper, literally. The tests compare ``bandwise.SMI`` with it.

It uses ``fft2`` of the full spectrum, ``torch.quantile`` and ``ifft2``, and nothing of the library.
There is one addition: the two magnitudes of a conjugate pair are made equal, so that rounding
cannot split the pair.
"""

import torch


class Algorithm1:
    def __init__(self, alpha, beta, q):
        self.alpha, self.beta, self.q = alpha, beta, q  # alpha: a function of the step
        self.t = 0
        self.H = None

    def filter(self, gradient):
        """The blended gradient, and whether the history changed."""
        self.t += 1
        rows = gradient.shape[0] if gradient.ndim > 1 else 1
        G = gradient.reshape(rows, -1)
        G_hat = torch.fft.fft2(G)
        M = G_hat.abs()
        if not gradient.is_complex():
            M = (M + conjugate_place(M)) / 2
        self.H = M.clone() if self.H is None else self.beta * self.H + (1 - self.beta) * M
        tau = torch.quantile(self.H, self.q)
        mask = (tau <= self.H).to(G_hat.dtype)
        G_filtered = torch.fft.ifft2(G_hat * mask)
        if not gradient.is_complex():
            G_filtered = G_filtered.real
        alpha = self.alpha(self.t)
        return alpha * G_filtered.reshape(gradient.shape) + (1 - alpha) * gradient


def conjugate_place(M):
    """M at (-i, -j), with indices modulo the sides."""
    n, d = M.shape
    return M[(-torch.arange(n)) % n][:, (-torch.arange(d)) % d]
