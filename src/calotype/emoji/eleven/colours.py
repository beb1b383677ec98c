"""Colours by name, from pixels: of the background, and of what is shown.

Pixels are compared in OKLab, where equal distances look about equally large.
Reference: Ottosson 2020, "A perceptual color space for image processing" (the matrices).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from calotype.emoji.captions import BACKGROUND_COLOURS
from calotype.emoji.eleven.parts import rim, whole

_TO_CONES = torch.tensor(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = torch.tensor(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_GROUNDS: Mapping[str, tuple[int, int, int]] = {**BACKGROUND_COLOURS, "white": (255, 255, 255)}
# Hue in degrees from which a colour begins; the last one ends where the first begins.
_HUES = {"red": -18, "orange": 33, "yellow": 78, "green": 112, "blue": 195, "purple": 284}


def oklab(pixels: Tensor) -> Tensor:
    """Pixels, (3, N) of sRGB in [0, 255], as lightness, a and b, (3, N)."""
    x = pixels / 255
    linear = torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    cones = _TO_CONES.to(x) @ linear
    return _TO_LAB.to(x) @ cones.clamp(min=0) ** (1 / 3)


def ground_fraction(image: Tensor, colour: str) -> float:
    """The fraction of the rim of an image by `small` to which this background is nearest."""
    names = list(_GROUNDS)
    known = oklab(torch.tensor(list(_GROUNDS.values()), dtype=torch.float32).T)
    found = oklab(rim(image))
    distances = (found[:, :, None] - known[:, None, :]).square().sum(0)
    return float((distances.argmin(1) == names.index(colour)).float().mean())


def main_colour(image: Tensor) -> str | None:
    """The basic colour that most of what is shown has; None if nothing is shown."""
    part = whole(image)
    if part is None:
        return None
    return Counter(basic_colours(image[:, torch.from_numpy(part.mask)])).most_common(1)[0][0]


def basic_colours(pixels: Tensor) -> list[str]:
    """The basic colours of pixels, (3, N) of sRGB in [0, 255].

    The borders lie between real images whose names are told apart by a colour; see `proof`.
    """
    light, a, b = oklab(pixels)
    chroma, hue = torch.hypot(a, b), torch.rad2deg(torch.atan2(b, a)) % 360
    names = ["grey"] * pixels.shape[1]

    def put(name: str, where: Tensor) -> None:
        for place in where.nonzero()[:, 0].tolist():
            names[place] = name

    coloured = chroma >= 0.04
    for (name, first), (_, last) in pairwise([*_HUES.items(), ("red", 342)]):
        put(name, coloured & ((hue - first) % 360 < last - first))
    reddish = (hue < 33) | (hue >= 330)
    put("pink", coloured & reddish & (light >= torch.where((hue < 4) | (hue >= 330), 0.6, 0.7)))
    put("brown", coloured & ((hue < 85) | (hue >= 350)) & (chroma < 0.135) & (light < 0.72))
    put("black", (chroma < 0.07) & (light < 0.38))
    put("black", (chroma < 0.03) & (light < 0.46))
    put("black", (chroma < 0.1) & (light < 0.3))
    put("white", ~coloured & (light > 0.92))
    return names
