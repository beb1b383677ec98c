"""All random numbers of a step of CLIP training; see `training.randomness`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.config.clip import ClipTraining, ImageTowerConfig
from calotype.diffusion import GlobalNoise
from calotype.tasks.augmentation import AugmentationNumbers, augmentation_numbers
from calotype.training.randomness import Rows, mixed_seed
from calotype.vision.noise_level import training_levels


@dataclass(frozen=True)
class ClipNumbers(Rows):
    """All random numbers of a step, on the CPU.

    Args:
        augmentation: of the images.
        eps: noise of the augmentation, standard normal, (B, 3, H, W); None without.
        patches: numbers of the patches that are looked at, (B, K) int64; None = all.
        text: noise of the captions' states, standard normal, (B, D); None without.
        logsnr: levels that augmented images are noised to, (B,) float64; None = they are not.
        level_eps: their noise, standard normal, (B, 3, H, W).
    """

    augmentation: AugmentationNumbers
    eps: Tensor | None
    patches: Tensor | None
    text: Tensor | None
    logsnr: Tensor | None = None
    level_eps: Tensor | None = None


def clip_numbers(config: ClipTraining, position: int, shape: torch.Size) -> ClipNumbers:
    """The numbers of the step at `position` for images of `shape` (B, 3, H, W)."""
    generator = torch.Generator().manual_seed(mixed_seed(config.seed, position, "clip"))
    count, tower = shape[0], config.clip.image
    augmentation = augmentation_numbers(count, generator)
    patches = eps = text = logsnr = level_eps = None
    kept = config.kept_patches
    if kept is not None and isinstance(tower, ImageTowerConfig):
        patches = torch.rand(count, tower.patches, generator=generator).argsort(1)[:, :kept]
    if config.text_noise > 0 and config.clip.text.states is not None:
        text = torch.randn(count, config.clip.text.states, generator=generator)
    if config.augmentation.noise > 0:
        eps = torch.randn(shape, generator=generator)
    if config.clip.noise is not None:
        # From a stream of their own: recipes without them keep their numbers.
        seed = mixed_seed(config.seed, position, "clip levels")
        noise = GlobalNoise(torch.Generator().manual_seed(seed))
        logsnr = training_levels(config.clip.noise, count, noise)
        level_eps = noise.normal(shape)
    return ClipNumbers(augmentation, eps, patches, text, logsnr, level_eps)
