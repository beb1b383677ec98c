"""Resizing, one filter everywhere: exact area averages when shrinking, bicubic when enlarging.

Area averages commute with compositing over a plain background when colours are premultiplied by
alpha, so an image may be shrunk before its background is chosen.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from calotype.errors import UsageError


class TooSmall(UsageError):
    """An image smaller than the stage, which the settings leave out."""


def area_resize(x: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Resize images (B, C, H, W) to `size` = (height, width) or a side.

    Each side by itself: shrinking averages over the exact area of a new pixel (box filter),
    enlarging is bicubic without antialiasing. Values outside the old range are possible only
    when enlarging.
    """
    height, width = (size, size) if isinstance(size, int) else size
    rows, columns = x.shape[-2:]
    if rows % height == 0 and columns % width == 0:
        kernel = (rows // height, columns // width)
        return x if kernel == (1, 1) else functional.avg_pool2d(x, kernel)
    if height < rows:
        # 256 to 224 is 32 times 8 to 7: blocks of the image that need no others.
        blocks = math.gcd(rows, height)
        weights = _area_weights(rows // blocks, height // blocks).to(x)
        x = x.reshape(*x.shape[:-2], blocks, rows // blocks, columns)
        x = torch.matmul(weights, x).flatten(-3, -2)
    if width < columns:
        blocks = math.gcd(columns, width)
        weights = _area_weights(columns // blocks, width // blocks).to(x)
        x = x.reshape(*x.shape[:-1], blocks, columns // blocks)
        x = torch.matmul(x, weights.T).flatten(-2)
    if x.shape[-2:] != (height, width):
        x = functional.interpolate(x, (height, width), mode="bicubic", align_corners=False)
    return x


def fit_image(
    image: NDArray[np.uint8],
    side: int,
    *,
    fit: Literal["crop", "pad"] = "crop",
    small: Literal["enlarge", "skip"] = "enlarge",
) -> NDArray[np.uint8]:
    """Make an image square and `side` pixels wide.

    Args:
        image: (H, W, 4) straight-alpha RGBA.
        side: pixels.
        fit: "crop" keeps the centre square; "pad" adds transparent borders (the background of
            the caption shows there).
        small: "skip" refuses images whose square is smaller than `side`.

    Returns:
        (side, side, 4) straight-alpha RGBA.

    Raises:
        TooSmall: by `small`.
    """
    height, width = image.shape[:2]
    square = min(height, width) if fit == "crop" else max(height, width)
    if square < side and small == "skip":
        raise TooSmall(f"got {width}x{height} pixels; expected at least {side}")
    if fit == "crop":
        top, left = (height - square) // 2, (width - square) // 2
        cut = image[top : top + square, left : left + square]
        return _resize_straight(cut, (side, side))
    new_height = max(1, round(height * side / square))
    new_width = max(1, round(width * side / square))
    padded = np.zeros((side, side, 4), np.uint8)
    top, left = (side - new_height) // 2, (side - new_width) // 2
    padded[top : top + new_height, left : left + new_width] = _resize_straight(
        image, (new_height, new_width)
    )
    return padded


def _resize_straight(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize straight-alpha RGBA by way of premultiplied colours, rounded once at the end."""
    if image.shape[:2] == size:
        return np.ascontiguousarray(image)
    opaque = bool((image[..., 3] == 255).all())
    planes = torch.empty((1, 3 if opaque else 4, *size))
    alpha = image[..., 3].astype(np.float32)
    for channel in range(planes.shape[1]):
        plane = image[..., channel].astype(np.float32)
        if not opaque and channel < 3:
            plane *= alpha / 255
        # One channel at a time: a photograph as float32 RGBA would take 16 bytes a pixel.
        planes[:, channel : channel + 1] = area_resize(torch.from_numpy(plane)[None, None], size)
    result = np.full((*size, 4), 255, np.uint8)
    pixels = planes[0].permute(1, 2, 0).numpy()
    if not opaque:
        new_alpha = pixels[..., 3:]
        result[..., 3:] = np.rint(np.clip(new_alpha, 0, 255))
        pixels = pixels[..., :3] * (255 / np.maximum(new_alpha, 1e-3))
    result[..., :3] = np.rint(np.clip(pixels[..., :3], 0, 255))
    return result


def _area_weights(length: int, shorter: int) -> Tensor:
    """(shorter, length) weights: how much of each old pixel lies in each new one, rows sum to 1."""
    scale = length / shorter
    start = torch.arange(shorter, dtype=torch.float64)[:, None] * scale
    pixel = torch.arange(length, dtype=torch.float64)[None, :]
    overlap = torch.minimum(start + scale, pixel + 1) - torch.maximum(start, pixel)
    return (overlap.clamp(min=0) / scale).to(torch.float32)
