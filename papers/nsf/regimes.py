"""What the parts train. What the paper trains is not known to us."""

from __future__ import annotations

from papers.nsf.authors import EPOCHS, Cifar10, Mnist5k
from papers.nsf.scales import SCALES
from papers.paper import Regime, ScaleName

# Images in a batch, and images that train.
MNIST = (64, 3_000)
CIFAR10: dict[ScaleName, tuple[int, int]] = {"small": (64, 9_000), "paper": (128, 45_000)}


def regime(part: str, scale: ScaleName) -> Regime:
    """What a part trains: the epochs of the images. The abstract is about test error."""
    mnist, cifar10 = (batch / images for batch, images in (MNIST, CIFAR10[scale]))
    if part == "images":
        steps = SCALES[scale].image_steps
        mnist, cifar10 = steps[0] * mnist, steps[1] * cifar10
    elif part == "authors":
        mnist *= Mnist5k.recipe.steps
        cifar10 = Cifar10.recipe.steps * cifar10 if scale == "small" else EPOCHS
    else:
        return Regime("")
    here = f"{mnist:.2g} epochs of MNIST-5k, {cifar10:.3g} of CIFAR-10 here"
    return Regime(f"{here}; the paper's are not known to us, {EPOCHS} in its authors' earlier code")
