"""Decoding: bytes of any common image file to straight-alpha RGBA, or a reason why not.

CMYK, palette, grey, 16-bit and EXIF-rotated images are converted; of an animation the first
frame is taken. Truncated, empty, one-pixel and absurdly large images are refused by reason.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from calotype.cascade.image_files import FORMATS, to_rgba
from calotype.data.fast_png import decode_ordinary_png, png_size
from calotype.errors import CalotypeError

MAX_PIXELS = 89_000_000
"""More are taken for a decompression bomb and refused before decoding; Pillow warns just above."""

MIN_SIDE = 2
"""Images with a shorter side are of no use and mostly tracking pixels."""

SUFFIXES = frozenset(
    (".png .jpg .jpeg .jpe .jfif .webp .gif .bmp .tif .tiff .avif .jp2 .ppm .pgm .tga").split()
)

MAX_FILE_BYTES = 1_000_000_000
"""Larger files are refused before they are read: 89 million pixels have 712 MB at 16 bits."""

# What is wrong with an image is counted; Pillow would print it as well, once for every place.
warnings.filterwarnings("ignore", module=r"PIL\.")


class BrokenImage(CalotypeError):
    """An image that cannot be trained on; the message is the reason."""


def decode_image(data: bytes) -> NDArray[np.uint8]:
    """Decode an image file.

    Args:
        data: the file's bytes.

    Returns:
        (H, W, 4) uint8, straight-alpha RGBA, upright.

    Raises:
        BrokenImage: with the reason, for whatever is wrong with it.
    """
    if not data:
        raise BrokenImage("empty file (0 bytes)")
    try:
        size = png_size(data)
        if size is not None:
            _check_size(*size)
        if (ordinary := decode_ordinary_png(data)) is not None:
            return ordinary
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(*image.size)
            return to_rgba(image)
    except BrokenImage:
        raise
    except UnidentifiedImageError as error:
        raise BrokenImage("not an image in a known format") from error
    except Image.DecompressionBombError as error:
        raise BrokenImage(f"decompression bomb: {error}") from error
    except MemoryError as error:
        raise BrokenImage("too large for memory") from error
    except Exception as error:  # Decoders raise nearly anything on hostile bytes.
        raise BrokenImage(f"{type(error).__name__}: {error}") from error


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise BrokenImage(f"got {width}x{height} pixels; expected at least {MIN_SIDE} a side")
    if width * height > MAX_PIXELS:
        raise BrokenImage(
            f"decompression bomb: got {width}x{height} pixels; expected at most {MAX_PIXELS:,}"
        )
