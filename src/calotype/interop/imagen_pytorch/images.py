"""Small things around images: number types, crops, PIL."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from calotype.errors import UsageError


def as_float(images: Tensor, *, like: Tensor | None = None) -> Tensor:
    """Images as float32, of floats, or of bytes, which are divided by 255."""
    if images.dtype == torch.uint8:
        images = images / 255
    elif not images.is_floating_point():
        raise UsageError(f"got images of {images.dtype}; expected floats, or uint8 of 0 ... 255")
    return images.float() if like is None else images.to(like)


def cropped(x: Tensor, side: int) -> Tensor:
    """The same random square of images (B, C, H, W); one larger than they are is refused."""
    rest = x.shape[-1] - side
    if rest < 0:
        raise UsageError(f"got random_crop_sizes={side} for images of {x.shape[-1]}")
    top, left = (int(torch.randint(rest + 1, ())) for _ in range(2))
    return x[..., top : top + side, left : left + side]


def pil_images(images: Tensor) -> list[Any]:
    """Images (B, C, H, W) in [0, 1], C = 1, 3 or 4, as PIL images."""
    from PIL import Image

    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(one[..., 0] if one.shape[-1] == 1 else one) for one in pixels]
