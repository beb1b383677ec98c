"""Sizes of images at every stage: what is asked for, what fits, what is too large."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

from calotype.cascade.pixels import MAX_PIXELS
from calotype.config.stage import StageConfig
from calotype.errors import UsageError


def padded_lowres_size(size: tuple[int, int], configs: Sequence[StageConfig]) -> tuple[int, int]:
    """The smallest size not below `size` whose enlargements all fit their networks."""
    source = configs[0].lowres_resolution
    assert source is not None
    unit = size_unit(source, configs)
    # At least two units: networks cannot normalise a single value.
    height, width = (max(2, -(-side // unit)) * unit for side in size)
    return height, width


def stage_sizes(size: tuple[int, int], configs: Sequence[StageConfig]) -> list[tuple[int, int]]:
    """The size that each stage samples when the last one samples `size`, height and width."""
    last = configs[-1].resolution
    unit = size_unit(last, configs)
    if any(type(side) is not int or side < 1 or side % unit for side in size):
        height, width = _nearest_legal(size, unit)
        raise UsageError(
            f"got size {size[1]!s:.40}x{size[0]!s:.40} (width x height); expected sides that are "
            f"multiples of {unit} pixels, e.g. {width}x{height}"
        )
    return [(size[0] * c.resolution // last, size[1] * c.resolution // last) for c in configs]


def size_like(height: int, width: int, configs: Sequence[StageConfig]) -> tuple[int, int]:
    """A size that the last stage samples, of about the shape of an image, and as it was made for.

    Images of such a size already keep it, from half as many pixels as the stage was made for on.
    Sides differ from that by a factor of two at most, whatever the image.
    """
    last = configs[-1].resolution
    unit = size_unit(last, configs)
    if height % unit == 0 == width % unit and 0.5 <= height * width / last**2 <= 1.5:
        return height, width
    scale = last / math.sqrt(height * width)
    tall, wide = (min(max(side * scale, last / 2), last * 2) for side in (height, width))
    return max(1, round(tall / unit)) * unit, max(1, round(wide / unit)) * unit


def size_unit(resolution: int, configs: Sequence[StageConfig]) -> int:
    """Sides of images of about `resolution` must be multiples of this to fit all networks."""
    wholes = ((resolution * config.network.divisor, config.resolution) for config in configs)
    return math.lcm(*(whole // math.gcd(whole, side) for whole, side in wholes))


def check_divisible(size: tuple[int, int], config: StageConfig) -> None:
    """Refuse images whose sides the network cannot halve often enough."""
    divisor = config.network.divisor
    if any(side <= 0 or side % divisor for side in size):
        raise UsageError(
            f"got an image of {size[1]}x{size[0]}; expected sides that are multiples of "
            f"{divisor} pixels for the {config.resolution} stage"
        )


def _nearest_legal(size: tuple[int, int], unit: int) -> tuple[int, int]:
    """A size of about the same shape that fits, not above what was asked for."""
    height, width = (
        min(side, MAX_PIXELS) if type(side) is int and side > 0 else unit for side in size
    )
    most = max(1, MAX_PIXELS // unit // unit)  # units of a side, beside a side of one unit
    shrink = max(1.0, math.sqrt(height / MAX_PIXELS * width))
    tall, wide = (min(most, max(1, int(side / shrink) // unit)) * unit for side in (height, width))
    return tall, wide


def first_upscaler(configs: Sequence[StageConfig], side: float) -> int:
    """The stage made for images of about this side."""
    sources = enumerate(config.lowres_resolution for config in configs)
    distances = {i: abs(math.log(side / it)) for i, it in sources if it is not None}
    if not distances:
        raise UsageError("this cascade has no super-resolution stage; expected one to upscale")
    return min(distances, key=lambda index: distances[index])


def enlarged(size: tuple[int, int], config: StageConfig, source: int) -> tuple[int, int]:
    """The size a stage makes of images of `size`, made for those of side `source`."""
    height, width = (side * config.resolution // source for side in size)
    return height, width


def check_pixels(size: tuple[int, int], config: StageConfig, most: int = MAX_PIXELS) -> None:
    """Refuse images too large to sample, in one piece if nothing else is said."""
    if size[0] * size[1] > most:
        raise UsageError(
            f"got {size[1]}x{size[0]} pixels for the {config.resolution} stage; expected at most "
            f"{math.isqrt(most)}x{math.isqrt(most)}: take a smaller image or size"
        )


def pad_lowres(lowres: Tensor, config: StageConfig, sampled: tuple[int, int]) -> Tensor:
    """Repeat the last row and column until a stage enlarges images to the size `sampled`."""
    assert config.lowres_resolution is not None
    height, width = (side * config.lowres_resolution // config.resolution for side in sampled)
    pad = (0, width - lowres.shape[3], 0, height - lowres.shape[2])
    return functional.pad(lowres.float(), pad, mode="replicate")
