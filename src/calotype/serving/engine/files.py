"""Finished images and previews as files: PNG, JPEG and WebP, each with all that is known of it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calotype.cascade.image_files import over_colour
from calotype.cascade.png import encode_png
from calotype.cascade.provenance import (
    MOST_JPEG_BYTES,
    MOST_RECIPE_BYTES,
    exif_parameters,
    recipe_json,
    xmp_packet,
)
from calotype.serving.job import Format

Pixels = NDArray[np.uint8]
_WHITE = (255, 255, 255)
_FINE_QUALITY = 90  # of a JPEG, from which on its colours are kept at full resolution


def encode_file(
    pixels: Pixels,
    recipe: Mapping[str, Any],
    *,
    format: Format,
    compression: int,
    metadata: bool,
) -> bytes:
    """A finished image as a file.

    Args:
        pixels: (H, W, 3 or 4), straight alpha.
        recipe: of the image; what is transparent lies over its edit's background in a JPEG.
        format: of the file.
        compression: 0 to 100: quality of JPEG and WebP.
        metadata: whether the file says how it was made: recipe, `parameters` text and XMP.
    """
    if format == "png":
        return encode_png(pixels, recipe if metadata else None)
    options: dict[str, Any] = {"quality": max(1, compression)}
    if format == "jpeg":
        pixels = _opaque(pixels, recipe)
        options["subsampling"] = 0 if compression >= _FINE_QUALITY else 2
    if metadata:
        most = MOST_JPEG_BYTES if format == "jpeg" else MOST_RECIPE_BYTES
        options["exif"] = exif_parameters(recipe)
        options["xmp"] = xmp_packet(recipe, recipe_json(recipe, most_bytes=most))
    return _saved(pixels, format, options)


def encode_preview(pixels: Pixels, format: Format) -> bytes:
    """An image that is looked at once: quickly made, and nothing in it but pixels."""
    options: dict[Format, dict[str, Any]] = {
        "png": {"compress_level": 1},
        "jpeg": {"quality": 80},
        "webp": {"quality": 75, "method": 0},
    }
    return _saved(_opaque(pixels, {}) if format == "jpeg" else pixels, format, options[format])


def _opaque(pixels: Pixels, recipe: Mapping[str, Any]) -> Pixels:
    if pixels.shape[2] == 3:
        return pixels
    red, green, blue = recipe.get("edit", {}).get("background", _WHITE)
    return over_colour(pixels, (red, green, blue))


def _saved(pixels: Pixels, format: Format, options: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=format, **options)
    return buffer.getvalue()
