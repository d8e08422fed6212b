"""InceptionV3 as FID uses it: the 2015 TensorFlow network up to its 2048 pooled features.

Layers are called as in the widely used PyTorch conversion of those weights, whose state dict
therefore loads. It differs from the later ImageNet network in two places: averages of 3 x 3 leave
the padding out, and the last block takes a maximum where the others take an average. torchvision
has the later one alone.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

SIDE = 299
"""Pixels of the input's sides."""
FEATURES = 2048
CLASSES = 1008
"""Width of the unused classification layer that the weight file holds."""

Size = int | tuple[int, int]
Layer = tuple[int, Size]  # output channels, kernel
Chain = dict[str, Layer]


class Convolution(nn.Module):
    """Convolution without bias, batch norm (epsilon 1e-3), ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Size, stride: int, padding: bool):
        super().__init__()
        rows, columns = (kernel, kernel) if isinstance(kernel, int) else kernel
        around = (rows // 2, columns // 2) if padding else 0
        self.conv = nn.Conv2d(inputs, outputs, (rows, columns), stride, around, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H', W')."""
        return functional.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Chains of convolutions side by side, their outputs concatenated, pooling last.

    Args:
        inputs: channels.
        chains: layers of each chain in order; names ending in a and b fork from the layer before.
        pool: channels of the convolution behind the pooling; 0: a pooling that halves the sides, as
            the last layer of every chain does too.
        largest: pool by maximum instead of average.
    """

    def __init__(self, inputs: int, chains: list[Chain], pool: int, largest: bool = False):
        super().__init__()
        self.chains, self.largest, self.halves = (
            [list(chain) for chain in chains],
            largest,
            not pool,
        )
        for chain in chains:
            width = inputs
            for name, (outputs, kernel) in chain.items():
                strided = self.halves and name == self.chains[chains.index(chain)][-1]
                layer = Convolution(width, outputs, kernel, 1 + strided, not strided)
                setattr(self, name, layer)
                width = width if name.endswith("a") else outputs
        if pool:
            self.branch_pool = Convolution(inputs, pool, 1, 1, False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, inputs, H, W) to (B, sum of outputs, H', W')."""
        outputs = []
        for chain in self.chains:
            y, forks = x, []
            for name in chain:
                if name.endswith(("a", "b")):
                    forks.append(getattr(self, name)(y))
                else:
                    y = getattr(self, name)(y)
            outputs += forks or [y]
        if self.halves:
            return torch.cat([*outputs, functional.max_pool2d(x, 3, 2)], 1)
        if self.largest:
            pooled = functional.max_pool2d(x, 3, 1, 1)
        else:
            pooled = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return torch.cat([*outputs, self.branch_pool(pooled)], 1)


def _early(inputs: int, pool: int) -> Block:
    chains: list[Chain] = [
        {"branch1x1": (64, 1)},
        {"branch5x5_1": (48, 1), "branch5x5_2": (64, 5)},
        {"branch3x3dbl_1": (64, 1), "branch3x3dbl_2": (96, 3), "branch3x3dbl_3": (96, 3)},
    ]
    return Block(inputs, chains, pool)


def _middle(width: int) -> Block:
    row, column = (1, 7), (7, 1)
    double: list[Layer] = [(width, 1), (width, column), (width, row), (width, column), (192, row)]
    chains: list[Chain] = [
        {"branch1x1": (192, 1)},
        {"branch7x7_1": (width, 1), "branch7x7_2": (width, row), "branch7x7_3": (192, column)},
        {f"branch7x7dbl_{number}": layer for number, layer in enumerate(double, 1)},
    ]
    return Block(768, chains, 192)


def _late(inputs: int, largest: bool) -> Block:
    row, column = (1, 3), (3, 1)
    chains: list[Chain] = [
        {"branch1x1": (320, 1)},
        {"branch3x3_1": (384, 1), "branch3x3_2a": (384, row), "branch3x3_2b": (384, column)},
        {
            "branch3x3dbl_1": (448, 1),
            "branch3x3dbl_2": (384, 3),
            "branch3x3dbl_3a": (384, row),
            "branch3x3dbl_3b": (384, column),
        },
    ]
    return Block(inputs, chains, 192, largest)


class Inception(nn.Module):
    """Network from images to features."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, 2, False)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, 1, False)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, 1, True)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1, 1, False)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, 1, False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = (
            _early(192, 32),
            _early(256, 64),
            _early(288, 64),
        )
        double: Chain = {"branch3x3dbl_1": (64, 1), "branch3x3dbl_2": (96, 3)}
        self.Mixed_6a = Block(
            288, [{"branch3x3": (384, 3)}, {**double, "branch3x3dbl_3": (96, 3)}], 0
        )
        for name, width in zip("bcde", (128, 160, 160, 192), strict=True):
            setattr(self, f"Mixed_6{name}", _middle(width))
        wide: list[Layer] = [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3)]
        self.Mixed_7a = Block(
            768,
            [
                {"branch3x3_1": (192, 1), "branch3x3_2": (320, 3)},
                {f"branch7x7x3_{number}": layer for number, layer in enumerate(wide, 1)},
            ],
            0,
        )
        self.Mixed_7b, self.Mixed_7c = _late(1280, False), _late(2048, True)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 3, H, W) in [0, 1] to (B, 2048); resizes bilinearly, scales to [-1, 1]."""
        x = functional.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False)
        x = 2 * x - 1
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = functional.max_pool2d(x, 3, 2)
        x = functional.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            x = getattr(self, f"Mixed_{name}")(x)
        return x.mean((2, 3))
