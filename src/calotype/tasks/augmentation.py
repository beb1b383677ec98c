"""What images go through on their way into training, from random numbers made ahead."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from calotype.config.augmentation import ImageAugmentation
from calotype.training.randomness import Rows

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class AugmentationNumbers(Rows):
    """The random numbers of images, on the CPU, uniform in [0, 1).

    Args:
        crop: area, ratio of sides, row and column of the crop, and mirroring, (B, 5).
        blur: whether, and how much, (B, 2).
        colour: brightness, contrast, saturation, (B, 3).
        noise: how much of it, (B,).
    """

    crop: Tensor
    blur: Tensor
    colour: Tensor
    noise: Tensor


def augmentation_numbers(count: int, generator: torch.Generator) -> AugmentationNumbers:
    """Those of so many images."""

    def uniform(*columns: int) -> Tensor:
        return torch.rand(count, *columns, generator=generator)

    return AugmentationNumbers(uniform(5), uniform(2), uniform(3), uniform())


def augmented(
    x: Tensor,
    numbers: AugmentationNumbers,
    config: ImageAugmentation,
    *,
    eps: Tensor | None = None,
    side: int | None = None,
) -> Tensor:
    """Crop, mirror, blur, recolour and noise images.

    Args:
        x: (B, 3, H, W) in [-1, 1].
        numbers: of these rows.
        config: how much of each.
        eps: noise, standard normal, like the images that are returned; None = none.
        side: of these in pixels; None = as they came.

    Returns:
        (B, 3, side, side), or (B, 3, H, W), in [-1, 1].
    """
    x = _cropped(x, numbers.crop.to(x), config, side=side)
    if config.blur > 0:
        x = _blurred(x, numbers.blur.to(x), config.blur)
    if config.colour > 0:
        x = _recoloured(x, (2 * numbers.colour.to(x) - 1) * config.colour)
    if eps is not None:
        x = x + config.noise * numbers.noise.to(x)[:, None, None, None] * eps.to(x)
    return x.clamp(-1, 1)


def _cropped(x: Tensor, numbers: Tensor, config: ImageAugmentation, *, side: int | None) -> Tensor:
    """Crops of random size, ratio and place, brought to the side or the images' size."""
    area = config.smallest_crop + (1 - config.smallest_crop) * numbers[:, 0]
    ratio = config.stretch ** (2 * numbers[:, 1] - 1)
    height, width = (area / ratio).sqrt().clamp_max(1), (area * ratio).sqrt().clamp_max(1)
    # In coordinates where the image is [-1, 1]: half sides, and centres that keep crops within.
    top, left = (
        (1 - side) * (2 * u - 1) for side, u in ((height, numbers[:, 2]), (width, numbers[:, 3]))
    )
    mirrored = torch.where((numbers[:, 4] < 0.5) & config.flip, -1.0, 1.0).to(x)
    zero = torch.zeros_like(top)
    theta = torch.stack((width * mirrored, zero, left, zero, height, top), 1).view(-1, 2, 3)
    size = list(x.shape[2:]) if side is None else [side, side]
    grid = F.affine_grid(theta, [*x.shape[:2], *size], align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _blurred(x: Tensor, numbers: Tensor, fraction: float) -> Tensor:
    """Between the images, and what is left of them at half and at a quarter of the resolution."""
    size = list(x.shape[2:])
    coarse = [
        F.interpolate(F.avg_pool2d(x, step), size=size, mode="bilinear", align_corners=False)
        for step in (2, 4)
    ]
    amount = torch.where(numbers[:, 0] < fraction, 2 * numbers[:, 1], 0.0)[:, None, None, None]
    x = torch.lerp(x, coarse[0], amount.clamp_max(1))
    return torch.lerp(x, coarse[1], (amount - 1).clamp_min(0))


def _recoloured(x: Tensor, change: Tensor) -> Tensor:
    brightness, contrast, saturation = change[:, :, None, None, None].unbind(1)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * (1 + contrast) + brightness
    grey = (x * x.new_tensor(_GREY)[:, None, None]).sum(1, keepdim=True)
    return grey + (x - grey) * (1 + saturation)
