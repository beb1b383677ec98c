"""Images of any size: what a cascade generates, at a scale it was trained at, to be cut from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from calotype.cascade.sizes import size_unit
from calotype.config.stage import StageConfig
from calotype.errors import UsageError

Size = tuple[int, int]  # height and width
_LONGEST = 4  # times the other side: the largest proportion that is generated
_ABOUT = 0.1  # a stage's own sizes have its number of pixels, so nearly
_MOST = 1.5  # times its pixels are made by the last stage at once, before it goes over them again


@dataclass(frozen=True)
class SizePlan:
    """How an image of any size is made.

    Args:
        stop_at: resolution of the last stage that samples.
        size: height and width that it samples.
        smaller: what that is shrunk to before the last stage enlarges it again in tiles, as often
            as there are sizes.
    """

    stop_at: int
    size: Size
    smaller: tuple[Size, ...] = ()


def enlarges_again(config: StageConfig) -> bool:
    """Whether a stage can go over larger images in tiles."""
    return config.lowres_resolution is not None and config.draft is None


def plan_size(size: Size, configs: Sequence[StageConfig]) -> SizePlan:
    """The smallest stage that reaches a size, at about the number of pixels it was trained at.

    Args:
        size: height and width of the finished image.
        configs: the model's stages, a base first.

    Raises:
        UsageError: the model does not reach it.
    """
    for index, config in enumerate(configs):
        unit, trained = size_unit(config.resolution, configs[: index + 1]), config.resolution**2
        pixels, last = size[0] * size[1] / trained, config is configs[-1]
        if _legal(size, unit) and 1 - _ABOUT <= pixels <= (_MOST if last else 1 + _ABOUT):
            return SizePlan(config.resolution, size)
        trained_size = _of_shape(size, math.sqrt(trained), unit)
        if _reaches(trained_size, size):
            return SizePlan(config.resolution, trained_size)
        larger = _at_least(size, unit)
        if last and larger[0] * larger[1] <= _MOST * trained:
            return SizePlan(config.resolution, larger)
    return _enlarged_again(size, configs[-1], trained_size)


def _enlarged_again(size: Size, last: StageConfig, made: Size) -> SizePlan:
    if not enlarges_again(last):
        raise UsageError(
            f"got size {size[1]}x{size[0]} for a model that makes about "
            f"{last.resolution}x{last.resolution}; expected at most that"
        )
    factor = last.resolution // (last.lowres_resolution or 1)
    smaller: list[Size] = []
    needed = size
    while not smaller or not _reaches(made, needed):
        needed = (-(-needed[0] // factor), -(-needed[1] // factor))
        smaller.insert(0, needed)
    return SizePlan(last.resolution, made, tuple(smaller))


def _legal(size: Size, unit: int) -> bool:
    longest = max(size) <= _LONGEST * min(size)
    return longest and all(side % unit == 0 for side in size)


def _reaches(made: Size, size: Size) -> bool:
    return made[0] >= size[0] and made[1] >= size[1]


def _of_shape(size: Size, side: float, unit: int) -> Size:
    """About `side`^2 pixels of a size's shape, but of none too long; sides rounded to units."""
    shape = min(max(size[1] / size[0], 1 / _LONGEST), _LONGEST)
    height, width = (
        max(unit, math.ceil(length / unit - 0.5) * unit)
        for length in (side / math.sqrt(shape), side * math.sqrt(shape))
    )
    return height, width


def _at_least(size: Size, unit: int) -> Size:
    """The smallest size that reaches another and is not too long."""
    shortest = max(size) / _LONGEST
    height, width = (-(-math.ceil(max(side, shortest)) // unit) * unit for side in size)
    return height, width


def cut(pixels: np.ndarray, size: Size) -> np.ndarray:
    """The middle of an image, (H, W, C) uint8, of a size's shape, area-averaged to that size.

    An image smaller than the size, as the last estimate of an unfinished one may be, is enlarged.
    """
    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels
    scale = min(height / size[0], width / size[1])
    tall, wide = size[0] * scale, size[1] * scale
    top, left = (height - tall) / 2, (width - wide) / 2
    if scale == 1:  # whole pixels, as they are
        top, left = float(int(top)), float(int(left))
    box = (left, top, min(left + wide, width), min(top + tall, height))
    method = Image.Resampling.BOX if scale >= 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), method, box=box))
