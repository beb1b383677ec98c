"""What a CLIP of noisy images is told of their level, and the levels that it is trained at."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from calotype.config.clip import NoiseConfig
from calotype.diffusion import DiscreteSchedule, NoiseSchedule, NoiseSource, stratified_levels
from calotype.diffusion.named import build_schedule

_ENDS = (0.01, 0.99)
"""Log-SNRs beyond those of these times are told as theirs, in training, too.

There images look alike, and log-SNR runs off: a clean image is told a level of one image in a
hundred that the CLIP was trained on, and not one that it hardly ever saw.
"""


def told_level(noise: NoiseConfig | None, logsnr: Tensor | None, z: Tensor) -> Tensor | None:
    """What the image tower is told of levels (B,): log-SNR, timesteps, or (None) nothing.

    Args:
        noise: what the CLIP was trained with; None = clean images.
        logsnr: of each image. Between timesteps the nearest is told; beyond `_ENDS` of the
            schedule's times, theirs. None = clean images, for which +inf stands.
        z: the images, (B, 3, H, W).
    """
    if noise is None or noise.told == "untold":
        return None
    if logsnr is None:
        logsnr = torch.full((len(z),), math.inf, device=z.device)
    schedule = _schedule(noise)
    if noise.told == "timestep":
        assert isinstance(schedule, DiscreteSchedule)
        return schedule.timestep(logsnr).round().long().to(z.device)
    # On the CPU whatever the default device: operations are counted without memory.
    most, least = schedule.logsnr(torch.tensor(_ENDS, device="cpu")).tolist()
    return logsnr.clamp(least, most).to(z.device, torch.float32)


def training_levels(noise: NoiseConfig, count: int, source: NoiseSource) -> Tensor:
    """Log-SNR of a batch, (count,) float64, stratified: whole timesteps of a table, or times."""
    return stratified_levels(count, source, _schedule(noise))


@functools.cache
def _schedule(noise: NoiseConfig) -> NoiseSchedule:
    return build_schedule(noise.schedule)
