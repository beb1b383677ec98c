"""Between pictures as networks see them and pixels as files hold them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_pixels(images: Tensor) -> np.ndarray:
    """Pictures, (B, 3, H, W) in [-1, 1], as (B, H, W, 3) uint8."""
    scaled = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().numpy()


def from_pixels(pixels: np.ndarray) -> Tensor:
    """The inverse of `to_pixels`."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1
