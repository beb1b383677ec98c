"""What in-painting is trained without: holes of four kinds, each of the area that was asked for.

Every kind is a field of scores over the image, large where the hole is to be first; the pixels with
the largest scores are hidden, as many as the area says. So areas hold whatever the shape.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from calotype.config.masks import MasksConfig

CORNERS = 5
"""Of the line that a brush follows."""
NUMBERS = 2 + 2 * CORNERS
"""Uniform random numbers that decide one mask: kind, area, shape."""
_SPREADS = 4  # how often a silhouette is blurred: its hole grows by up to half of the image


def known_masks(config: MasksConfig, numbers: Tensor, alpha: Tensor) -> Tensor:
    """Masks of training images, True = known; (B, 1, H, W) bool.

    Args:
        config: how often each kind of hole comes, and how large it is.
        numbers: uniform in [0, 1), (B, `NUMBERS`).
        alpha: opacity of the images, (B, 1, H, W) in [0, 1].
    """
    kinds = (_boxes, _strokes, _borders, _silhouettes)
    ends = torch.tensor([config.whole, *(holes.fraction for holes in config.holes)]).cumsum(0)
    chosen = torch.searchsorted(ends[:-1], numbers[:, 0].contiguous(), right=True)
    mask = torch.zeros(alpha.shape, dtype=torch.bool)
    for number, (holes, scores) in enumerate(zip(config.holes, kinds, strict=True), 1):
        rows = chosen == number
        if bool(rows.any()):
            area = holes.smallest + (holes.largest - holes.smallest) * numbers[rows, 1]
            field = scores(numbers[rows, 2:], alpha[rows, 0])
            mask[rows, 0] = ~_largest(field, area)
    return mask


def some_holes(config: MasksConfig, alpha: Tensor, *, seed: int) -> Tensor:
    """Masks as `known_masks` makes them, of which each has a hole and none is whole."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand((len(alpha), NUMBERS), generator=generator)
    numbers[:, 0] = config.whole + (1 - config.whole) * numbers[:, 0]
    return known_masks(config, numbers, alpha)


def _largest(scores: Tensor, area: Tensor) -> Tensor:
    """The pixels of (B, H, W) with the largest scores: a fraction `area`, (B,); equal ones all."""
    flat = scores.flatten(1)
    counts = (area * flat.shape[1]).round().long().clamp(1, flat.shape[1])
    ordered = flat.sort(dim=1, descending=True).values
    return (scores >= ordered.gather(1, counts[:, None] - 1)[..., None]) & (scores > -math.inf)


def _places(like: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of every pixel of (B, H, W), in (0, 1), each (H, W)."""
    height, width = like.shape[1:]
    rows, columns = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    return rows[:, None].expand(height, width), columns.expand(height, width)


def _numbers(numbers: Tensor, count: int) -> list[Tensor]:
    """The first `count` of each row, each (B, 1, 1)."""
    return [numbers[:, i, None, None] for i in range(count)]


def _boxes(numbers: Tensor, alpha: Tensor) -> Tensor:
    """Nearness to a centre, in the largest of both directions; one to two sides by two to one."""
    row, column = _places(alpha)
    centre_row, centre_column, shape = _numbers(numbers, 3)
    stretch = 2 ** (shape - 0.5)
    high, wide = (row - centre_row).abs() * stretch, (column - centre_column).abs() / stretch
    return -torch.maximum(high, wide)


def _strokes(numbers: Tensor, alpha: Tensor) -> Tensor:
    """Nearness to a line with `CORNERS` corners."""
    row, column = _places(alpha)
    points = numbers[:, : 2 * CORNERS].view(-1, CORNERS, 2)
    distances = []
    for start, end in zip(points.unbind(1), points.unbind(1)[1:], strict=False):
        (top, left), (down, right) = (
            (p[:, 0, None, None], p[:, 1, None, None]) for p in (start, end - start)
        )
        length = (down**2 + right**2).clamp(min=1e-6)
        along = (((row - top) * down + (column - left) * right) / length).clamp(0, 1)
        distances.append((row - top - along * down) ** 2 + (column - left - along * right) ** 2)
    return -torch.stack(distances).amin(0)


def _borders(numbers: Tensor, alpha: Tensor) -> Tensor:
    """Nearness to one side, to two that meet, or to any of the four, each kind a third."""
    row, column = _places(alpha)
    kind, side = _numbers(numbers, 2)
    sides = torch.stack((row, 1 - column, 1 - row, column))  # clockwise
    first = (side[:, 0, 0] * 4).long()
    one, two = sides[first], torch.minimum(sides[first], sides[(first + 1) % 4])
    return -torch.where(kind < 1 / 3, one, torch.where(kind < 2 / 3, two, sides.amin(0)))


def _silhouettes(numbers: Tensor, alpha: Tensor) -> Tensor:
    """All that is not transparent, and then what is near it."""
    side = max(1, min(alpha.shape[1:]) // 8)
    near = alpha[:, None]
    for _ in range(_SPREADS):
        near = F.avg_pool2d(near, 2 * side + 1, 1, side)
    near = torch.where(near[:, 0] > 0, near[:, 0], -math.inf)  # no further: it stays known
    return torch.where(alpha > 0, math.inf, near)
