"""The Inception-v3 that FID is defined by: that of TensorFlow's 2015 graph, quirks and all.

It differs from the published Inception-v3 in three ways, each of which moves FID: averages leave
padding out, the last block pools by maximum, and there are 1008 classes. Names of weights are those
of the reference file, as are the order of branches and of joined channels.

Reference: Szegedy et al. 2016, arXiv:1512.00567; Heusel et al. 2017, arXiv:1706.08500 (FID).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DIMENSION, CLASSES = 2048, 1008


@dataclass(frozen=True)
class Layer:
    """A convolution by its name in the file: output channels, kernel (height, width), stride.

    `fork`: a second one of the same width, of the transposed kernel, reads the same input; their
    names end in a and b.
    """

    name: str
    width: int
    kernel: tuple[int, int]
    stride: int = 1
    fork: bool = False


class Convolution(nn.Module):
    """Convolution without bias, batch normalisation by stored statistics, ReLU."""

    def __init__(self, width: int, layer: Layer, *, padded: bool = True) -> None:
        super().__init__()
        height, across = layer.kernel
        padding = (height // 2, across // 2) if padded else 0
        self.conv = nn.Conv2d(
            width, layer.width, layer.kernel, stride=layer.stride, padding=padding, bias=False
        )
        self.bn: nn.Module = nn.BatchNorm2d(layer.width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width, H', W')."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Mixed(nn.Module):
    """Branches of convolutions side by side, and one that pools, joined over channels.

    Args:
        width: channels in.
        branches: layers one after the other; a layer of stride 2 has no padding.
        pool: "average" (padding left out), "maximum", or "halve": by maximum, with stride 2.
        pool_width: channels of the convolution after the pooling; None = there is none.
    """

    def __init__(
        self, width: int, branches: Sequence[Sequence[Layer]], pool: str, pool_width: int | None
    ) -> None:
        super().__init__()
        self.pool, self.width = pool, 0
        self._branches = [self._branch(width, branch) for branch in branches]
        self.branch_pool = None
        if pool_width is not None:
            self.branch_pool = Convolution(width, Layer("branch_pool", pool_width, (1, 1)))
        self.width += width if pool_width is None else pool_width

    def _branch(self, width: int, layers: Sequence[Layer]) -> list[tuple[str, ...]]:
        names: list[tuple[str, ...]] = []
        for layer in layers:
            kernels = {"": layer.kernel}
            if layer.fork:
                kernels = {"a": layer.kernel, "b": layer.kernel[::-1]}
            for ending, kernel in kernels.items():
                one = Layer(layer.name, layer.width, kernel, layer.stride)
                self.add_module(
                    layer.name + ending, Convolution(width, one, padded=layer.stride == 1)
                )
            names.append(tuple(layer.name + ending for ending in kernels))
            width = layer.width * len(kernels)
        self.width += width
        return names

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, self.width, H', W')."""
        found = []
        for branch in self._branches:
            y = x
            for names in branch:
                parts = [self.get_submodule(name)(y) for name in names]
                y = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
            found.append(y)
        y = _pooled(x, self.pool)
        found.append(y if self.branch_pool is None else self.branch_pool(y))
        return torch.cat(found, 1)


def _pooled(x: Tensor, pool: str) -> Tensor:
    if pool == "average":
        return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    if pool == "maximum":
        return F.max_pool2d(x, 3, stride=1, padding=1)
    return F.max_pool2d(x, 3, stride=2)


_ONE, _THREE, _FIVE, _LONG, _TALL = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)
_DOUBLE_3 = [
    Layer("branch3x3dbl_1", 64, _ONE),
    Layer("branch3x3dbl_2", 96, _THREE),
]  # fmt: skip


def _block_35(width: int, pool_width: int) -> Mixed:
    """Of 35 x 35 positions."""
    branches = [
        [Layer("branch1x1", 64, _ONE)],
        [Layer("branch5x5_1", 48, _ONE), Layer("branch5x5_2", 64, _FIVE)],
        [*_DOUBLE_3, Layer("branch3x3dbl_3", 96, _THREE)],
    ]
    return Mixed(width, branches, "average", pool_width)


def _block_17(width: int, narrow: int) -> Mixed:
    """Of 17 x 17 positions; `narrow` channels within the branches."""
    branches = [
        [Layer("branch1x1", 192, _ONE)],
        [
            Layer("branch7x7_1", narrow, _ONE),
            Layer("branch7x7_2", narrow, _LONG),
            Layer("branch7x7_3", 192, _TALL),
        ],
        [
            Layer("branch7x7dbl_1", narrow, _ONE),
            Layer("branch7x7dbl_2", narrow, _TALL),
            Layer("branch7x7dbl_3", narrow, _LONG),
            Layer("branch7x7dbl_4", narrow, _TALL),
            Layer("branch7x7dbl_5", 192, _LONG),
        ],
    ]
    return Mixed(width, branches, "average", 192)


def _block_8(width: int, pool: str) -> Mixed:
    """Of 8 x 8 positions."""
    branches = [
        [Layer("branch1x1", 320, _ONE)],
        [Layer("branch3x3_1", 384, _ONE), Layer("branch3x3_2", 384, (1, 3), fork=True)],
        [
            Layer("branch3x3dbl_1", 448, _ONE),
            Layer("branch3x3dbl_2", 384, _THREE),
            Layer("branch3x3dbl_3", 384, (1, 3), fork=True),
        ],
    ]
    return Mixed(width, branches, pool, 192)


def _to_17(width: int) -> Mixed:
    """From 35 x 35 to 17 x 17 positions."""
    branches = [
        [Layer("branch3x3", 384, _THREE, stride=2)],
        [*_DOUBLE_3, Layer("branch3x3dbl_3", 96, _THREE, stride=2)],
    ]
    return Mixed(width, branches, "halve", None)


def _to_8(width: int) -> Mixed:
    """From 17 x 17 to 8 x 8 positions."""
    branches = [
        [Layer("branch3x3_1", 192, _ONE), Layer("branch3x3_2", 320, _THREE, stride=2)],
        [
            Layer("branch7x7x3_1", 192, _ONE),
            Layer("branch7x7x3_2", 192, _LONG),
            Layer("branch7x7x3_3", 192, _TALL),
            Layer("branch7x7x3_4", 192, _THREE, stride=2),
        ],
    ]
    return Mixed(width, branches, "halve", None)


class Inception(nn.Module):
    """Images (N, 3, 299, 299), (pixel - 128) / 128, to features (N, 2048)."""

    def __init__(self) -> None:
        super().__init__()
        first = Layer("", 32, _THREE, stride=2)
        self.Conv2d_1a_3x3 = Convolution(3, first, padded=False)
        self.Conv2d_2a_3x3 = Convolution(32, Layer("", 32, _THREE), padded=False)
        self.Conv2d_2b_3x3 = Convolution(32, Layer("", 64, _THREE))
        self.Conv2d_3b_1x1 = Convolution(64, Layer("", 80, _ONE))
        self.Conv2d_4a_3x3 = Convolution(80, Layer("", 192, _THREE), padded=False)
        self.Mixed_5b = _block_35(192, 32)
        self.Mixed_5c = _block_35(256, 64)
        self.Mixed_5d = _block_35(288, 64)
        self.Mixed_6a = _to_17(288)
        self.Mixed_6b = _block_17(768, 128)
        self.Mixed_6c = _block_17(768, 160)
        self.Mixed_6d = _block_17(768, 160)
        self.Mixed_6e = _block_17(768, 192)
        self.Mixed_7a = _to_8(768)
        self.Mixed_7b = _block_8(1280, "average")
        self.Mixed_7c = _block_8(2048, "maximum")
        self.fc = nn.Linear(DIMENSION, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Features of images; means over the 8 x 8 positions of the last block."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))  # (N, 64, 147, 147)
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))  # (N, 192, 71, 71)
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))  # (N, 288, 35, 35)
        x = self.Mixed_6a(x)
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))  # (N, 768, 17, 17)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))  # (N, 2048, 8, 8)
        return x.mean((2, 3))

    def logits(self, features: Tensor) -> Tensor:
        """Features (N, 2048) to (N, 1008), without the bias, as the Inception Score is taken.

        Reference: Salimans et al. 2016, arXiv:1606.03498; that its code leaves the bias out is
        the convention of torch-fidelity ("logits_unbiased").
        """
        return features @ self.fc.weight.T
