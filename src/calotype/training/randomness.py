"""Everything random in training, as pure functions of (seed, position).

The position is the number of the first picture of a step in the endless shuffled stream, so a run
that is resumed there draws the same numbers without any state to restore.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.config import NormalLogSNR, TrainConfig
from calotype.diffusion import GlobalNoise, NoiseSchedule, normal_logsnr, stratified_times


def mixed_seed(seed: int, position: int, purpose: str) -> int:
    """A 63-bit seed from a seed, a position and a purpose; no two purposes share a stream."""
    text = f"calotype training {purpose} {seed} {position}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


@dataclass(frozen=True)
class StepDraws:
    """All random numbers of one optimizer step, on the CPU.

    Args:
        logsnr: noise levels, (B,) float64.
        eps: noise of the pictures, (B, 3, H, W).
        keep: False where the caption is dropped, (B,) bool.
        aug_level: noise level of the low-resolution pictures, (B,) in [0, 1]; None for a base.
        aug_noise: their noise, (B, 3, H, W); None for a base.
        folded: True where the draft is that of the fold which never saw the caption, (B,) bool;
            None where there are no folds.
    """

    logsnr: Tensor
    eps: Tensor
    keep: Tensor
    aug_level: Tensor | None
    aug_noise: Tensor | None
    folded: Tensor | None = None

    def part(self, rows: slice | Tensor) -> StepDraws:
        """The draws of some pictures of the step, by a slice or by their numbers."""
        level, noise, folded = self.aug_level, self.aug_noise, self.folded
        return StepDraws(
            self.logsnr[rows],
            self.eps[rows],
            self.keep[rows],
            None if level is None else level[rows],
            None if noise is None else noise[rows],
            None if folded is None else folded[rows],
        )


def draw_step(
    config: TrainConfig, schedule: NoiseSchedule, position: int, *, shape: torch.Size
) -> StepDraws:
    """Draw what the step at `position` needs for pictures of `shape` (B, 3, H, W)."""
    noise = GlobalNoise(torch.Generator().manual_seed(mixed_seed(config.seed, position, "step")))
    if isinstance(config.levels, NormalLogSNR):
        logsnr = normal_logsnr(shape[0], noise, mean=config.levels.mean, std=config.levels.std)
    else:
        logsnr = schedule.logsnr(stratified_times(shape[0], noise))
    keep = noise.uniform((shape[0],)) >= config.text_dropout
    aug_level = aug_noise = None
    if config.stage.lowres_resolution is not None:
        aug_level = noise.uniform((shape[0],)) * config.aug_level_max
        aug_noise = noise.normal(shape)
    folded = None
    if config.draft is not None and config.draft.folds > 0:
        # From a stream of its own: recipes without folds draw what they always drew.
        generator = torch.Generator().manual_seed(mixed_seed(config.seed, position, "folds"))
        folded = torch.rand(shape[0], generator=generator) < config.draft.fold_fraction
    return StepDraws(logsnr, noise.normal(shape), keep, aug_level, aug_noise, folded)


def seed_networks(seed: int, position: int, *, part: int = 0) -> None:
    """Seed torch's global generator, which dropout inside networks draws from."""
    torch.manual_seed(mixed_seed(seed, position, f"network {part}"))
