"""One training image with its captions: what every source of data hands over.

An image keeps its transparency, so that a caption may ask for a background colour and get it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Caption:
    """One way of asking for an image.

    Args:
        text: the words.
        background: colour (red, green, blue), each 0..255, to paint behind the image when this
            caption is chosen; None = the source's default, white.
        concept: what is shown, however it is said and in whichever style; "" = the data do not say.
    """

    text: str
    background: tuple[int, int, int] | None = None
    concept: str = ""


@dataclass(frozen=True, eq=False)
class Example:
    """An image and several equally good captions of it.

    `key` is unique and stable in its source; `image` is (H, W, 4) uint8, RGBA with straight alpha.
    An empty tuple of captions, like an empty caption, trains as unconditional. `label` is the name
    of its class; None = nobody asked, or the data do not say.
    """

    key: str
    image: NDArray[np.uint8]
    captions: tuple[Caption, ...]
    label: str | None = None
