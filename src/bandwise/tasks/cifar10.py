"""Residual networks on the images of CIFAR-10."""

import codecs
import functools
import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from bandwise.tasks.classification import Classification, Data
from bandwise.tasks.fetch import fetch
from bandwise.tasks.resnet import resnet, wide_resnet
from bandwise.tasks.task import Recipe, generator

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
CIFAR10_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"

_MEAN = torch.tensor((0.4914, 0.4822, 0.4465)).view(3, 1, 1)
_STD = torch.tensor((0.2470, 0.2435, 0.2616)).view(3, 1, 1)
_PADDING = 4

Model = Literal["small", "resnet18", "wideresnet"]


class Cifar10(Classification):
    """Classify the 60,000 images of CIFAR-10, 32 x 32 pixels in colour.

    A tenth of the training images validates, always the same. The test images test. Training images
    are flipped and shifted at random by up to 4 pixels; seed and step decide how.

    Args:
        size: ``"small"``: a ResNet of 8 layers, 16 to 64 wide, and 10,000 training images, for a
            CPU. ``"paper"``: ResNet-18 and all images, for a GPU.
        path: ``None``: CIFAR-10's archive, which is downloaded once. Otherwise the path of the
            archive, of its folder ``cifar-10-batches-py`` (torchvision has the same), or of an
            ``.npz`` of JPEG files: ``{train,test}_bytes`` (uint8, the files one after the other),
            ``{train,test}_offsets`` (int64, where each starts, and the end) and
            ``{train,test}_labels``.
        model: ``"small"``, ``"resnet18"`` or ``"wideresnet"``; ``None``: the size's.
        images: training images that are used, with those that validate; ``None``: the size's.
        depth: layers of the wide ResNet.
        widen: width of the wide ResNet over that of ResNet.
        batch_size: images in a training batch; ``None``: 64 for small, 128 for paper.

    Raises:
        ValueError: an option has no such value, or the file is no CIFAR-10.
        OSError: the images cannot be read or downloaded.
    """

    name = "cifar10"
    recipe = Recipe(steps=1000, lr=4e-3)

    def __init__(
        self,
        size: Literal["small", "paper"] = "small",
        path: str | None = None,
        model: Model | None = None,
        images: Annotated[int, Field(ge=10)] | None = None,
        depth: Annotated[int, Field(ge=10)] = 28,
        widen: PositiveInt = 10,
        batch_size: PositiveInt | None = None,
    ) -> None:
        small = size == "small"
        self._model: Model = model or ("small" if small else "resnet18")
        self._depth, self._widen = depth, widen
        if not small:
            self.recipe = Recipe(steps=20_000, lr=1e-3, autocast="bfloat16")
        elif images is None:
            images = 10_000
        super().__init__(_load(path, images), batch_size or (64 if small else 128))

    def model(self) -> nn.Module:
        if self._model == "wideresnet":
            return wide_resnet(self._depth, self._widen)
        small = self._model == "small"
        return resnet((16, 32, 64), 1) if small else resnet((64, 128, 256, 512), 2)

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        images, labels = super().batch(seed, step)
        return augmented(images, generator(seed, step)), labels


def augmented(images: Tensor, random: torch.Generator) -> Tensor:
    """Images (number, channels, height, width), flipped and shifted at random by up to 4 pixels."""
    count, _, height, width = images.shape
    padded = nn.functional.pad(images, (_PADDING,) * 4)
    top, left = torch.randint(2 * _PADDING + 1, (2, count, 1), generator=random)
    flip = torch.rand(count, 1, generator=random) < 0.5
    rows = top + torch.arange(height)
    columns = left + torch.arange(width)
    columns = torch.where(flip, columns.flip(1), columns)
    # Indices on both sides of a slice put their dimensions first: (number, height, width, …).
    chosen = padded[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return chosen.permute(0, 3, 1, 2).contiguous()


def _load(path: str | None, images: int | None) -> Data:
    if path is None:
        found = fetch(CIFAR10_URL, CIFAR10_SHA256, "--path FILE, a file with CIFAR-10")
    else:
        found = Path(path).resolve()
    if not found.exists():
        raise FileNotFoundError(
            f"path must be CIFAR-10's archive, its folder or an .npz file, got {path!r}"
        )
    return _read(found, found.stat().st_mtime_ns, images)


@functools.cache
def _read(path: Path, modified_ns: int, images: int | None) -> Data:
    """The images of a file. ``modified_ns`` is for the cache: a new file is read again."""
    try:
        splits = _jpegs(path) if path.suffix == ".npz" else _batches(path)
        (pixels, labels), test = _drawn(splits["train"], images), _drawn(splits["test"], None)
    except Exception as error:  # archives, pickles and images each break in ways of their own
        raise ValueError(f"path {str(path)!r} does not hold CIFAR-10: {error}") from error
    # The order is random, so the first tenth is a random sample.
    tenth = len(labels) // 10
    return {
        "train": (pixels[tenth:], labels[tenth:]),
        "val": (pixels[:tenth], labels[:tenth]),
        "test": test,
    }


# The labels of a split, its images as they are stored, and what makes (3, 32, 32) pixels of one.
_Stored: TypeAlias = tuple[Any, Any, Callable[[np.ndarray], np.ndarray]]


def _drawn(stored: _Stored, images: int | None) -> tuple[Tensor, Tensor]:
    """Images in an order that is random and always the same, about standardised by channel."""
    labels, files, decode = stored
    if images is not None and images > len(labels):
        raise ValueError(f"images must be at most the {len(labels)} that there are, got {images}")
    chosen = torch.randperm(len(labels), generator=generator(seed=0, step=0))[:images]
    pixels = torch.from_numpy(np.stack([decode(files[i]) for i in chosen.tolist()]))
    return (pixels.float().div_(255) - _MEAN) / _STD, torch.as_tensor(labels).long()[chosen]


def _jpegs(path: Path) -> dict[str, _Stored]:
    from PIL import Image

    def decode(file: np.ndarray) -> np.ndarray:
        pixels = np.asarray(Image.open(io.BytesIO(file.tobytes())).convert("RGB"))
        return pixels.transpose(2, 0, 1)

    with np.load(path) as arrays:
        return {
            split: (
                arrays[f"{split}_labels"],
                np.split(arrays[f"{split}_bytes"], arrays[f"{split}_offsets"])[1:-1],
                decode,
            )
            for split in ("train", "test")
        }


def _batches(path: Path) -> dict[str, _Stored]:
    """The splits of the archive or folder. Nothing is unpacked, and no code is run."""
    if path.is_dir():
        files = {file.name: file.read_bytes() for file in path.iterdir() if "_batch" in file.name}
    else:
        with tarfile.open(path) as archive:
            files = {
                Path(member.name).name: opened.read()
                for member in archive
                if "_batch" in member.name and (opened := archive.extractfile(member))
            }
    splits = {"train": [f"data_batch_{n}" for n in range(1, 6)], "test": ["test_batch"]}
    found: dict[str, _Stored] = {}
    for split, names in splits.items():
        batches = [_Arrays(io.BytesIO(files[name]), encoding="bytes").load() for name in names]
        labels, rows = (np.concatenate([b[key] for b in batches]) for key in (b"labels", b"data"))
        found[split] = labels, rows, lambda row: row.reshape(3, 32, 32)
    return found


class _Arrays(pickle.Unpickler):
    """Loads arrays and plain data only, and runs no code."""

    def find_class(self, module: str, name: str) -> Any:
        # These are in pickles of arrays by NumPy 1 and 2, in all protocols.
        if (module, name) == ("_codecs", "encode"):
            return codecs.encode
        package = module.partition(".")[0]
        if package == "numpy" and name in ("ndarray", "dtype", "_reconstruct", "_frombuffer"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(
            f"a batch must hold arrays and plain data, not {module}.{name}"
        )
