"""Training loss by noise level: one number hides that easy and hard levels move differently.

Levels are named by sigma/alpha, the amount of noise over that of the image, with the same marks
as in validation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from calotype.diffusion.noise_marks import BINS, BOUNDS


def loss_by_level(losses: Tensor, logsnr: Tensor) -> dict[str, dict[str, float]]:
    """The mean loss in each bin that any image of the step fell into, for the log.

    Args:
        losses: of each image, (B,).
        logsnr: log(alpha^2 / sigma^2) of each image, (B,).

    Returns:
        `loss_by_level` (bin -> mean loss) and `images_by_level` (bin -> images): the sum of
        their products over the batch size is the loss of the step.
    """
    ratios = torch.exp(-0.5 * logsnr.double().cpu())
    numbers = torch.bucketize(ratios, torch.tensor(BOUNDS, dtype=torch.float64), right=True)
    counts = torch.bincount(numbers, minlength=len(BINS))
    sums = torch.zeros(len(BINS), dtype=torch.float64)
    sums.index_add_(0, numbers, losses.double().cpu())
    filled = [(name, int(n), float(s)) for name, n, s in zip(BINS, counts, sums, strict=True) if n]
    return {
        "loss_by_level": {name: float(f"{total / count:.7g}") for name, count, total in filled},
        "images_by_level": {name: count for name, count, _ in filled},
    }
