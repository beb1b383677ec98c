"""Image files of others, and images that other programs hold, as pixels; loads no torch."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from calotype.errors import UsageError
from calotype.storage.reading import read_regular

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA")
"""What Pillow may open, for it decides by a file's bytes and not by its name. It would hand others,
such as PostScript, to programs that run what is in them."""

_MAX_BYTES = 2**30
_ROWS = 64


def read_image(path: Path, *, most_pixels: int, still: bool = False) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) uint8, upright, on white where it is transparent.

    Args:
        path: of the file.
        most_pixels: that it may have.
        still: refuse files of several images; else the first one is taken.

    Raises:
        UsageError: it cannot be read, or has more pixels.
    """
    return over_white(read_rgba(path, most_pixels=most_pixels, still=still))


def read_rgba(
    path: Path, *, most_pixels: int, still: bool = False, to_srgb: bool = False
) -> NDArray[np.uint8]:
    """As `read_image`, but (H, W, 4), straight alpha; `to_srgb` applies a colour profile."""
    try:
        data = read_regular(path, most_bytes=_MAX_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {path}: {reason}; name an image") from error

    return rgba_of(data, str(path), most_pixels=most_pixels, still=still, to_srgb=to_srgb)


def rgba_of(
    data: bytes,
    name: str,
    *,
    most_pixels: int,
    still: bool = False,
    to_srgb: bool = False,
    formats: tuple[str, ...] = FORMATS,
) -> NDArray[np.uint8]:
    """As `read_rgba`, of a file's bytes, which messages call `name`.

    Of a JPEG with further images behind it, such as a camera's preview, the first is the image.
    """

    def opened() -> Image.Image:
        image = Image.open(io.BytesIO(data), formats=formats)
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        if still and frames > 1:
            raise UsageError(f"got {name}, which holds {frames} images; expected one: save one")
        return image

    return _decoded(opened, name, most_pixels, to_srgb=to_srgb)


def _in_srgb(image: Image.Image, name: str) -> Image.Image:
    """The image with its colour profile applied, told if that changes it; opacity is kept."""
    from PIL import ImageCms

    if not image.info.get("icc_profile") or image.mode.startswith(("I", "F")):
        return image  # of grey of 16 bits, which lcms does not take, profiles say little
    image = ImageOps.exif_transpose(image)  # what lcms makes is another image, without EXIF
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        srgb = ImageCms.createProfile("sRGB")
        mode = "RGBA" if "A" in image.getbands() or "transparency" in image.info else "RGB"
        known = image.mode in ("RGB", "RGBA", "CMYK", "L")
        given = image if known else image.convert(mode)
        converted = ImageCms.profileToProfile(given, profile, srgb, outputMode=mode)
        told = ImageCms.getProfileDescription(profile).strip()
    except (ImageCms.PyCMSError, OSError) as error:
        print(
            f"calotype: {name} has a colour profile that cannot be applied: {error}",
            file=sys.stderr,
        )
        return image
    assert converted is not None
    converted.info.pop("icc_profile", None)
    if "sRGB" not in told:
        print(f"calotype: the colours of {name} ({told}) are converted to sRGB", file=sys.stderr)
    return converted


def image_pixels(image: Image.Image, *, most_pixels: int) -> NDArray[np.uint8]:
    """An image of Pillow's as (H, W, 3) uint8; as `read_image`."""
    return over_white(_decoded(lambda: image, "the image", most_pixels))


def over_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 4) straight alpha over white, as (H, W, 3)."""
    return over_colour(rgba, (255, 255, 255))


def over_colour(rgba: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """(H, W, 4) straight alpha over a plain colour, as (H, W, 3)."""
    image = Image.fromarray(rgba)
    ground = Image.new("RGBA", image.size, colour)
    return np.asarray(Image.alpha_composite(ground, image).convert("RGB"))


def _decoded(
    opened: Callable[[], Image.Image], name: str, most_pixels: int, *, to_srgb: bool = False
) -> NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():  # what is wrong is an error of ours, and one line
            warnings.simplefilter("ignore")
            image = opened()
            width, height = image.size
            if width * height > most_pixels:
                raise UsageError(
                    f"got an image of {width}x{height}; expected at most {most_pixels:,} pixels: "
                    "shrink it"
                )
            return to_rgba(_in_srgb(image, name) if to_srgb else image)
    except UsageError:
        raise
    except Image.DecompressionBombError as error:  # Pillow looks before we can
        raise UsageError(
            f"got {name} with far too many pixels; expected at most {most_pixels:,}: shrink it"
        ) from error
    except UnidentifiedImageError as error:
        raise UsageError(f"{name} is no image that can be read; name another") from error
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UsageError(f"cannot read {name}: {reason}; name an image") from error


def to_rgba(image: Image.Image) -> NDArray[np.uint8]:
    """An opened image as straight-alpha RGBA, upright; decoders raise nearly anything."""
    orientation = image.getexif().get(0x0112, 1)
    image.load()
    upright = image if orientation == 1 else ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        return _from_deep_grey(np.asarray(upright))
    if upright.mode == "CMYK":
        upright = upright.convert("RGB")  # Pillow has no direct way to RGBA.
    if upright.mode != "RGBA":
        upright = upright.convert("RGBA")
    return np.asarray(upright)


def _from_deep_grey(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey of 16 bits, or float, to RGBA: Pillow's own conversion would clip instead of scale."""
    if grey.dtype.kind == "f":
        if not np.isfinite(grey).all():
            raise ValueError("it has pixels that are not finite")
        top = 1.0 if grey.max() <= 1 else 255.0
    else:
        top = 65535.0 if grey.max() <= 65535 else float(2**31 - 1)
    rgba = np.full((*grey.shape, 4), 255, np.uint8)
    for start in range(0, len(grey), _ROWS):  # in float64 all of it would be eight times as large
        values = grey[start : start + _ROWS].astype(np.float64)
        rgba[start : start + _ROWS, :, :3] = np.rint(np.clip(values / top, 0, 1) * 255)[..., None]
    return rgba
