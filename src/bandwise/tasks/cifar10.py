"""Residual networks on the images of CIFAR-10."""

from __future__ import annotations

import codecs
import functools
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from bandwise.optim import _checks
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
        images: int | None = None,
        depth: int = 28,
        widen: int = 10,
        batch_size: int | None = None,
    ) -> None:
        _checks.one_of("size", size, ("small", "paper"))
        small = size == "small"
        self._model: Model = model or ("small" if small else "resnet18")
        _checks.one_of("model", self._model, ("small", "resnet18", "wideresnet"))
        _checks.whole("depth", depth, 10)
        _checks.whole("widen", widen, 1)
        self._depth, self._widen = depth, widen
        if not small:
            self.recipe = Recipe(steps=20_000, lr=1e-3, autocast="bfloat16")
        if images is None and small:
            images = 10_000
        if images is not None:
            _checks.whole("images", images, 10)
        default = 64 if small else 128
        super().__init__(_load(path, images), default if batch_size is None else batch_size)

    def model(self) -> nn.Module:
        match self._model:
            case "small":
                return resnet((16, 32, 64), blocks=1)
            case "resnet18":
                return resnet((64, 128, 256, 512), blocks=2)
            case "wideresnet":
                return wide_resnet(self._depth, self._widen)

    def batch(self, seed: int, step: int) -> tuple[Tensor, Tensor]:
        images, labels = super().batch(seed, step)
        return augmented(images, generator(seed, step)), labels


def augmented(images: Tensor, random: torch.Generator) -> Tensor:
    """Images, flipped at random and shifted by up to 4 pixels. The edge is filled with 0.

    Args:
        images: (number, channels, height, width).
        random: the generator.
    """
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
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                train, test = (_jpegs(arrays, split, images) for split in ("train", "test"))
        else:
            batches = _batches(path)
            train = _joined([batches[f"data_batch_{number}"] for number in range(1, 6)], images)
            test = _joined([batches["test_batch"]], None)
    except Exception as error:  # archives, pickles and images each break in ways of their own
        raise ValueError(f"path {str(path)!r} does not hold CIFAR-10: {error}") from error
    pixels, labels = train
    # The order is random, so the first tenth is a random sample.
    tenth = len(labels) // 10
    return {
        "train": (pixels[tenth:], labels[tenth:]),
        "val": (pixels[:tenth], labels[:tenth]),
        "test": test,
    }


def _chosen(count: int, images: int | None) -> Tensor:
    """The indices of the images that are used, in an order that is random and always the same."""
    if images is not None and images > count:
        raise ValueError(f"images must be at most the {count} that there are, got {images}")
    return torch.randperm(count, generator=generator(seed=0, step=0))[:images]


def _normalised(pixels: np.ndarray) -> Tensor:
    """Pixels (number, channels, height, width), about standardised in each channel."""
    scaled: Tensor = (torch.from_numpy(pixels).float().div_(255) - _MEAN) / _STD
    return scaled


def _jpegs(arrays: np.lib.npyio.NpzFile, split: str, images: int | None) -> tuple[Tensor, Tensor]:
    from PIL import Image

    content, offsets, labels = (arrays[f"{split}_{n}"] for n in ("bytes", "offsets", "labels"))
    chosen = _chosen(len(labels), images if split == "train" else None)
    pixels = np.stack(
        [
            np.asarray(
                Image.open(io.BytesIO(content[offsets[i] : offsets[i + 1]].tobytes())).convert(
                    "RGB"
                )
            )
            for i in chosen.tolist()
        ]
    )
    return _normalised(pixels.transpose(0, 3, 1, 2)), torch.from_numpy(labels).long()[chosen]


def _batches(path: Path) -> dict[str, dict[bytes, np.ndarray]]:
    """The batches of an archive or folder, by name. Nothing is unpacked, and no code is run."""
    if path.is_dir():
        files = {f.name: f.read_bytes() for f in path.iterdir() if "_batch" in f.name}
    else:
        with tarfile.open(path) as archive:
            files = {
                Path(member.name).name: opened.read()
                for member in archive
                if "_batch" in member.name and (opened := archive.extractfile(member))
            }
    return {
        name: _Arrays(io.BytesIO(data), encoding="bytes").load() for name, data in files.items()
    }


class _Arrays(pickle.Unpickler):
    """Loads arrays and plain data only, and runs no code."""

    def find_class(self, module: str, name: str) -> Any:
        # These are in pickles of arrays by NumPy 1 and 2, in all protocols.
        if module == "_codecs" and name == "encode":
            return codecs.encode
        package = module.partition(".")[0]
        if package == "numpy" and name in ("ndarray", "dtype", "_reconstruct", "_frombuffer"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(
            f"a batch must hold arrays and plain data, not {module}.{name}"
        )


def _joined(batches: list[dict[bytes, np.ndarray]], images: int | None) -> tuple[Tensor, Tensor]:
    pixels = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
    labels = torch.from_numpy(np.concatenate([batch[b"labels"] for batch in batches])).long()
    chosen = _chosen(len(labels), images)
    return _normalised(pixels[chosen.numpy()]), labels[chosen]
