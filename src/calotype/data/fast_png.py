"""Ordinary PNGs by libvips, where pyvips is installed: a quarter of Pillow's time at 1024².

Only 8-bit RGB and RGBA, where every decoder gives the same pixels, so that an image does not
depend on what is installed. Whatever is out of the ordinary is left to Pillow.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ORDINARY = {(8, 2): 3, (8, 6): 4}
"""Bands by (bit depth, colour type), bytes 24 and 25 of the file (PNG 3rd edition, 11.2.1)."""


def decode_ordinary_png(data: bytes) -> NDArray[np.uint8] | None:
    """Decode to (H, W, 4) straight-alpha RGBA; None if the file is another's business.

    Sizes are not checked here.
    """
    bands = _ORDINARY.get((data[24], data[25])) if data[:8] == _SIGNATURE and data[33:] else None
    vips = _pyvips() if bands is not None else None
    if vips is None:
        return None
    try:
        image = vips.Image.new_from_buffer(data, "", access="sequential", fail_on="warning")
        rotated = image.get_typeof("orientation") != 0 and image.get("orientation") != 1
        if rotated or image.bands != bands or image.format != "uchar":
            return None
        if bands == 3:
            image = image.bandjoin(255)
        pixels = image.write_to_memory()
    except vips.Error:
        return None
    return np.frombuffer(pixels, np.uint8).reshape(image.height, image.width, 4)


def png_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in the header of a PNG; None for other files."""
    if data[:8] != _SIGNATURE or len(data) < 33:
        return None
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


@functools.cache
def _pyvips() -> Any:
    """The module, or None where it is missing or does not load."""
    # One thread an image: several images are decoded at once already.
    os.environ.setdefault("VIPS_CONCURRENCY", "1")
    try:
        import pyvips
    except (ImportError, OSError):
        return None
    # Its cache of operations would hold on to images that never come again.
    pyvips.cache_set_max(0)
    return pyvips
