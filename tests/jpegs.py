"""Synthetic images in the format of CIFAR-10's JPEG file. Each class has a colour."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def write_jpegs(path: Path, train: int, test: int) -> None:
    """Write images of ten colours with noise, sorted by class as real files may be."""
    random = np.random.default_rng(0)
    colours = random.integers(40, 216, (10, 3))
    arrays = {}
    for split, count in (("train", train), ("test", test)):
        labels = np.sort(np.arange(count) % 10)
        files = []
        for label in labels:
            pixels = colours[label] + random.normal(0, 20, (32, 32, 3))
            file = io.BytesIO()
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG")
            files.append(file.getvalue())
        arrays[f"{split}_bytes"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"{split}_offsets"] = np.cumsum([0, *map(len, files)])
        arrays[f"{split}_labels"] = labels
    np.savez(path, **arrays)
