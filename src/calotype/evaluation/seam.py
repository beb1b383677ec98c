"""How visible is the edge of a hole that was filled? Steps across it, beside steps near it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

NEAR = 8
"""Pixels from the edge within which other steps are compared with those across it."""


def seam_ratio(images: Tensor, keep: Tensor) -> float:
    """Mean step across the edge of holes over that between neighbours near it; 1 = no seam.

    Steps are absolute differences of pixels that lie side by side, or one above the other. The
    images count together, for there are ones in which nothing changes near the edge.

    Args:
        images: (B, C, H, W).
        keep: True = was kept, (B, 1, H, W) bool.

    Raises:
        ValueError: the shapes do not fit, or there is no edge.
    """
    if images.ndim != 4 or keep.shape != (len(images), 1, *images.shape[2:]):
        raise ValueError(
            f"got images {tuple(images.shape)} and a mask {tuple(keep.shape)}; expected "
            "(B, C, H, W) and (B, 1, H, W)"
        )
    sums, counts = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for axis in (2, 3):
        steps = images.double().diff(dim=axis).abs().mean(1, keepdim=True)
        across = keep.diff(dim=axis)  # of bool: whether they differ
        window = [1, 1]
        window[axis - 2] = 2 * NEAR + 1
        padding = [side // 2 for side in window]
        near = F.max_pool2d(across.float(), window, stride=1, padding=padding).bool() & ~across
        for place, chosen in enumerate((across, near)):
            sums[place] += steps[chosen].sum()
            counts[place] += chosen.sum()
    if not bool((counts > 0).all()):
        raise ValueError("got holes without an edge; expected masks that keep a part of each image")
    across_mean, near_mean = (sums / counts).tolist()
    return float(across_mean / near_mean)
