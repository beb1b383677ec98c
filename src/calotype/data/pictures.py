"""Decoding: bytes of any common picture file to straight-alpha RGBA, or a reason why not.

CMYK, palette, grey, 16-bit and EXIF-rotated pictures are converted; of an animation the first
frame is taken. Truncated, empty, one-pixel and absurdly large pictures are refused by reason.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from calotype.data.fast_png import decode_ordinary_png, png_size
from calotype.errors import CalotypeError

MAX_PIXELS = 89_000_000
"""More are taken for a decompression bomb and refused before decoding; Pillow warns just above."""

MIN_SIDE = 2
"""Pictures with a shorter side teach nothing and are mostly tracking pixels."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA")
"""What Pillow may open, for it decides by a file's bytes and not by its name. It would hand others,
such as PostScript, to programs that run what is in them."""

SUFFIXES = frozenset(
    (".png .jpg .jpeg .jpe .jfif .webp .gif .bmp .tif .tiff .avif .jp2 .ppm .pgm .tga").split()
)

MAX_FILE_BYTES = 1_000_000_000
"""Larger files are refused before they are read: 89 million pixels have 712 MB at 16 bits."""

# What is wrong with an image is counted; Pillow would print it as well, once for every place.
warnings.filterwarnings("ignore", module=r"PIL\.")


class BrokenPicture(CalotypeError):
    """A picture that cannot be trained on; the message is the reason."""


def decode_picture(data: bytes) -> NDArray[np.uint8]:
    """Decode a picture file.

    Args:
        data: the file's bytes.

    Returns:
        (H, W, 4) uint8, straight-alpha RGBA, upright.

    Raises:
        BrokenPicture: with the reason, for whatever is wrong with it.
    """
    if not data:
        raise BrokenPicture("empty file (0 bytes)")
    try:
        size = png_size(data)
        if size is not None:
            _check_size(*size)
        if (ordinary := decode_ordinary_png(data)) is not None:
            return ordinary
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check_size(*picture.size)
            return to_rgba(picture)
    except BrokenPicture:
        raise
    except UnidentifiedImageError as error:
        raise BrokenPicture("not a picture in a known format") from error
    except Image.DecompressionBombError as error:
        raise BrokenPicture(f"decompression bomb: {error}") from error
    except MemoryError as error:
        raise BrokenPicture("too large for memory") from error
    except Exception as error:  # Decoders raise nearly anything on hostile bytes.
        raise BrokenPicture(f"{type(error).__name__}: {error}") from error


def _check_size(width: int, height: int) -> None:
    if min(width, height) < MIN_SIDE:
        raise BrokenPicture(f"got {width}x{height} pixels; expected at least {MIN_SIDE} a side")
    if width * height > MAX_PIXELS:
        raise BrokenPicture(
            f"decompression bomb: got {width}x{height} pixels; expected at most {MAX_PIXELS:,}"
        )


def to_rgba(picture: Image.Image) -> NDArray[np.uint8]:
    """An opened picture as straight-alpha RGBA, upright; decoders raise nearly anything."""
    orientation = picture.getexif().get(0x0112, 1)
    picture.load()
    upright = picture if orientation == 1 else ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I") or upright.mode == "F":
        return _from_deep_grey(np.asarray(upright))
    if upright.mode == "CMYK":
        upright = upright.convert("RGB")  # Pillow has no direct way to RGBA.
    if upright.mode != "RGBA":
        upright = upright.convert("RGBA")
    return np.asarray(upright)


def _from_deep_grey(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey of 16 bits, or float, to RGBA: Pillow's own conversion would clip instead of scale."""
    values = grey.astype(np.float64)
    if not np.isfinite(values).all():
        raise BrokenPicture("has pixels that are not finite")
    if grey.dtype.kind == "f":
        top = 1.0 if values.max() <= 1 else 255.0
    else:
        top = 65535.0 if values.max() <= 65535 else float(2**31 - 1)
    rgba = np.full((*grey.shape, 4), 255, np.uint8)
    rgba[..., :3] = np.rint(np.clip(values / top, 0, 1) * 255)[..., None]
    return rgba
