"""Residual networks for images of 32 x 32 pixels.

ResNet is of "Deep Residual Learning", He et al., 2015, with a first layer for small images. The
wide ResNet is of "Wide Residual Networks", Zagoruyko and Komodakis, 2016.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class Block(nn.Module):
    """Two convolutions and a shortcut. Normalisation and activation come after a convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            _conv(inputs, outputs, stride=stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            _conv(outputs, outputs),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            conv = _conv(inputs, outputs, 1, stride)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.shortcut(x))


class WideBlock(nn.Module):
    """Two convolutions and a shortcut. Normalisation and activation come before a convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.branch = nn.Sequential(
            _conv(inputs, outputs, stride=stride),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            _conv(outputs, outputs),
        )
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = _conv(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        active = self.first(x)
        out: Tensor = self.branch(active) + (x if self.shortcut is None else self.shortcut(active))
        return out


def _groups(
    block: type[Block] | type[WideBlock], inputs: int, widths: Sequence[int], blocks: int
) -> list[nn.Module]:
    """Groups of blocks. Every group but the first halves the size of the image."""
    layers: list[nn.Module] = []
    for group, width in enumerate(widths):
        for number in range(blocks):
            layers.append(block(inputs, width, 2 if group and not number else 1))
            inputs = width
    return layers


def _ending(width: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]


def resnet(widths: Sequence[int], blocks: int, classes: int = 10) -> nn.Sequential:
    """``blocks`` blocks for each of ``widths``: (64, 128, 256, 512) and 2 are ResNet-18."""
    first = [_conv(3, widths[0]), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    groups = _groups(Block, widths[0], widths, blocks)
    return nn.Sequential(*first, *groups, *_ending(widths[-1], classes))


def wide_resnet(depth: int = 28, widen: int = 10, classes: int = 10) -> nn.Sequential:
    """WRN-depth-widen; ValueError unless ``depth`` is 4 more than a multiple of 6."""
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(f"depth must be 10, 16, 22, 28, 34, … (6 n + 4), got {depth}")
    widths = [16 * widen, 32 * widen, 64 * widen]
    groups = _groups(WideBlock, 16, widths, (depth - 4) // 6)
    last = [nn.BatchNorm2d(widths[-1]), nn.ReLU(), *_ending(widths[-1], classes)]
    return nn.Sequential(_conv(3, 16), *groups, *last)
