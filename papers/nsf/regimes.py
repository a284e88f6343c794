"""What the parts train. What the paper trains is not known to us."""

from __future__ import annotations

from papers.nsf.scales import SCALES
from papers.paper import Regime, ScaleName

# Of MNIST-5k and CIFAR-10: images in a batch, images that train.
IMAGES: dict[ScaleName, tuple[tuple[int, int], tuple[int, int]]] = {
    "small": ((64, 3_000), (64, 9_000)),
    "paper": ((64, 3_000), (128, 45_000)),
}


def regime(part: str, scale: ScaleName) -> Regime:
    """What a part trains: the epochs of the images. Claims of the paper rest on them alone."""
    if part != "images":
        return Regime("")
    steps = SCALES[scale].image_steps
    mnist, cifar10 = (
        f"{length * batch / images:.2g}"
        for length, (batch, images) in zip(steps, IMAGES[scale], strict=True)
    )
    here = f"{mnist} epochs of MNIST-5k, {cifar10} of CIFAR-10 here"
    return Regime(f"{here}; the paper's are not known to us")
