"""What images go through on their way into CLIP's training, from random numbers made ahead."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from calotype.config.clip import ClipAugmentation, ClipTraining
from calotype.training.randomness import Rows, mixed_seed

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class ClipNumbers(Rows):
    """All random numbers of a step of CLIP training, on the CPU, uniform in [0, 1) unless said.

    Args:
        crop: area, ratio of sides, row and column of the crop, and mirroring, (B, 5).
        blur: whether, and how much, (B, 2).
        colour: brightness, contrast, saturation, (B, 3).
        noise: how much of it, (B,).
        eps: noise of the images, standard normal, (B, 3, H, W); None without noise.
        patches: numbers of the patches that are looked at, (B, K) int64; None = all.
        text: noise of the captions' states, standard normal, (B, D); None without.
    """

    crop: Tensor
    blur: Tensor
    colour: Tensor
    noise: Tensor
    eps: Tensor | None
    patches: Tensor | None
    text: Tensor | None


def clip_numbers(config: ClipTraining, position: int, shape: torch.Size) -> ClipNumbers:
    """The numbers of the step at `position` for images of `shape` (B, 3, H, W)."""
    generator = torch.Generator().manual_seed(mixed_seed(config.seed, position, "clip"))
    count, tower = shape[0], config.clip.image

    def uniform(*columns: int) -> Tensor:
        return torch.rand(count, *columns, generator=generator)

    crop, blur, colour, noise = uniform(5), uniform(2), uniform(3), uniform()
    patches = eps = text = None
    if (kept := config.kept_patches) is not None:
        patches = uniform(tower.patches).argsort(1)[:, :kept]
    if config.text_noise > 0 and config.clip.text.states is not None:
        text = torch.randn(count, config.clip.text.states, generator=generator)
    if config.augmentation.noise > 0:
        eps = torch.randn(shape, generator=generator)
    return ClipNumbers(crop, blur, colour, noise, eps, patches, text)


def augmented(x: Tensor, numbers: ClipNumbers, config: ClipAugmentation) -> Tensor:
    """Crop, mirror, blur, recolour and noise images.

    Args:
        x: (B, 3, H, W) in [-1, 1].
        numbers: of these rows.
        config: how much of each.

    Returns:
        (B, 3, H, W) in [-1, 1].
    """
    x = _cropped(x, numbers.crop.to(x), config)
    if config.blur > 0:
        x = _blurred(x, numbers.blur.to(x), config.blur)
    if config.colour > 0:
        x = _recoloured(x, (2 * numbers.colour.to(x) - 1) * config.colour)
    if numbers.eps is not None:
        x = x + config.noise * numbers.noise.to(x)[:, None, None, None] * numbers.eps.to(x)
    return x.clamp(-1, 1)


def _cropped(x: Tensor, numbers: Tensor, config: ClipAugmentation) -> Tensor:
    """Crops of random size, ratio and place, enlarged to the images' size; some mirrored."""
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
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
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
