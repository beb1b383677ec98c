"""Render emoji artwork as square RGBA images with straight alpha, losslessly compressed.

Vector artwork is rendered by librsvg (pyvips). At 256 pixels it is rendered at 512 and
box-shrunk by two in premultiplied colour, which keeps edges free of dark or light fringes.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calotype.errors import CalotypeError, MissingExtra

# Part of every shard's fingerprint: raise it when the pixels change.
RENDER_VERSION = 1
# PNG without row filters at level 6 decoded in the shortest time of PNG and WebP settings tried
# (8-15 ms at 1024x1024 on one core; lossless WebP 11-16 ms, and three times slower to write).
_PNG_COMPRESSION = 6


@dataclass(frozen=True)
class RenderJob:
    """Artwork to render at `size` pixels a side; picklable, to be sent to a worker process."""

    data: bytes
    raster: bool
    size: int


def render_png(job: RenderJob) -> bytes | None:
    """Render one image as PNG bytes; None where the artwork is broken or wholly transparent."""
    vips = _vips()
    try:
        image = render(job)
    except (vips.Error, CalotypeError):
        return None
    if not image[..., 3].any():
        return None
    height, width, bands = image.shape
    buffer = vips.Image.new_from_memory(image.tobytes(), width, height, bands, "uchar")
    buffer = buffer.copy(interpretation="srgb")
    return bytes(buffer.pngsave_buffer(compression=_PNG_COMPRESSION, filter="none"))


def render(job: RenderJob) -> NDArray[np.uint8]:
    """Render one image: (size, size, 4) uint8 RGBA, straight alpha, clear pixels all zero.

    Raises:
        CalotypeError: a raster file is smaller than `size`: it is never enlarged.
        pyvips.Error: the artwork is broken.
    """
    vips = _vips()
    if job.raster:
        return _clear(_fitted(vips.Image.new_from_buffer(job.data, ""), job.size))
    scale = 2 if job.size <= 256 else 1
    side = str(job.size * scale).encode()
    svg = job.data.replace(b'"SIZE"', b'"' + side + b'"', 2)
    pixels = vips.Image.svgload_buffer(svg, unlimited=True).numpy()
    return _clear(pixels) if scale == 1 else box_halve(pixels)


def _fitted(image: Any, size: int) -> NDArray[np.uint8]:
    """A raster as a square of `size` pixels: centred on clear pixels, shrunk, never enlarged."""
    image = image if image.hasalpha() else image.bandjoin(255)
    side = max(image.width, image.height)
    if side < size:
        raise CalotypeError(f"got a raster of {image.width}x{image.height}; expected {size} pixels")
    if (image.width, image.height) != (size, size):
        image = image.gravity("centre", side, side).premultiply().resize(size / side)
        image = image.unpremultiply().rint()
    return np.asarray(image.cast("uchar").numpy(), dtype=np.uint8)


def box_halve(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Shrink straight-alpha RGBA (2H, 2W, 4) by two: means of 2x2 in premultiplied colour."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    block = pixels.reshape(height, 2, width, 2, 4).astype(np.float32)
    alpha = block[..., 3:]
    colour = (block[..., :3] * alpha).sum(axis=(1, 3))
    total = alpha.sum(axis=(1, 3))
    colour = np.divide(colour, total, out=np.zeros_like(colour), where=total > 0)
    shrunk = np.concatenate([colour, total / 4], axis=-1)
    return _clear(np.rint(shrunk).astype(np.uint8))


def _clear(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Zero the colour of fully transparent pixels: it cannot be seen, and compresses badly."""
    return np.where(pixels[..., 3:] > 0, pixels, np.uint8(0))


def pixel_digest(job: RenderJob) -> str | None:
    """A hash of the rendered pixels, to find images that are the same; None for a broken one."""
    try:
        return hashlib.sha256(render(job).tobytes()).hexdigest()
    except (_vips().Error, CalotypeError):
        return None


def _vips() -> Any:
    os.environ.setdefault("VIPS_CONCURRENCY", "1")  # worker processes fill the cores already
    try:
        import pyvips
    except ImportError as error:
        raise MissingExtra("data", "pyvips") from error
    pyvips.cache_set_max(0)
    return pyvips
