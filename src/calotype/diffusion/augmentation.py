"""The low-resolution image that conditions a super-resolution stage: enlarged, and noised.

Training and inference corrupt with the same function, so they cannot drift apart.
Reference: Imagen, section 2.4 (noise conditioning augmentation).
"""

import torch
from torch import Tensor
from torch.nn import functional

from calotype.diffusion.schedule import CosineSchedule, add_noise, broadcast_to_image
from calotype.errors import UsageError


def upsample_lowres(lowres: Tensor, resolution: int | tuple[int, int]) -> Tensor:
    """Enlarge images bicubically.

    Args:
        lowres: images, (B, 3, h, w) in [-1, 1].
        resolution: height and width of the result, or one number for both.

    Returns:
        Images (B, 3, H, W), clipped to [-1, 1] where the filter overshoots.
    """
    enlarged = functional.interpolate(lowres, resolution, mode="bicubic", align_corners=False)
    return enlarged.clamp(-1, 1)


def augment_lowres(lowres: Tensor, aug_level: Tensor, noise: Tensor) -> Tensor:
    """Corrupt conditioning images with the variance-preserving forward process.

    Args:
        lowres: enlarged images, (B, 3, H, W).
        aug_level: how much noise, (B,) in [0, 1]: the time of the cosine schedule. 0 returns the
            image as it is, bit by bit.
        noise: standard normal, like `lowres`.

    Raises:
        UsageError: if a level is out of range.
    """
    if not bool(((aug_level >= 0) & (aug_level <= 1)).all()):
        raise UsageError(f"aug_level is {aug_level.tolist()}, expected numbers in [0, 1]")
    noised = add_noise(lowres, CosineSchedule().logsnr(aug_level), noise)
    return torch.where(broadcast_to_image(aug_level == 0, lowres) == 1, lowres, noised)
