"""All random numbers of a step of CLIP training; see `training.randomness`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.config.clip import ClipTraining
from calotype.tasks.augmentation import AugmentationNumbers, augmentation_numbers
from calotype.training.randomness import Rows, mixed_seed


@dataclass(frozen=True)
class ClipNumbers(Rows):
    """All random numbers of a step, on the CPU.

    Args:
        augmentation: of the images.
        eps: noise of the images, standard normal, (B, 3, H, W); None without noise.
        patches: numbers of the patches that are looked at, (B, K) int64; None = all.
        text: noise of the captions' states, standard normal, (B, D); None without.
    """

    augmentation: AugmentationNumbers
    eps: Tensor | None
    patches: Tensor | None
    text: Tensor | None


def clip_numbers(config: ClipTraining, position: int, shape: torch.Size) -> ClipNumbers:
    """The numbers of the step at `position` for images of `shape` (B, 3, H, W)."""
    generator = torch.Generator().manual_seed(mixed_seed(config.seed, position, "clip"))
    count, tower = shape[0], config.clip.image
    augmentation = augmentation_numbers(count, generator)
    patches = eps = text = None
    if (kept := config.kept_patches) is not None:
        patches = torch.rand(count, tower.patches, generator=generator).argsort(1)[:, :kept]
    if config.text_noise > 0 and config.clip.text.states is not None:
        text = torch.randn(count, config.clip.text.states, generator=generator)
    if config.augmentation.noise > 0:
        eps = torch.randn(shape, generator=generator)
    return ClipNumbers(augmentation, eps, patches, text)
