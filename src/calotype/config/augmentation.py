"""How images are changed at random before a CLIP or a classifier learns from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from calotype.config.ranges import Fraction, Range, Settings


@dataclass(frozen=True, kw_only=True)
class ImageAugmentation(Settings):
    """What images go through on their way into training; everything 0 leaves them alone.

    Args:
        smallest_crop: least fraction of an image's area that a random crop keeps, in (0, 1].
        stretch: largest ratio of a crop's sides.
        flip: mirror at random.
        blur: fraction of the images that lose fine detail, down to a quarter of the resolution.
        colour: largest change of brightness, contrast and saturation, in [0, 1].
        noise: largest standard deviation of noise, in units of [-1, 1].
    """

    smallest_crop: Annotated[float, Range(0.01, 1.0)] = 0.6
    stretch: Annotated[float, Range(1.0, 4.0)] = 1.25
    flip: bool = True
    blur: Fraction = 0.3
    colour: Fraction = 0.2
    noise: Annotated[float, Range(0.0, 1.0)] = 0.05
