"""What stages of published models differ in: timesteps, learned variance, enlargement.

Their networks are conditioned on whole timesteps of a table instead of a log-SNR, predict the
variance of the reverse step, too, and were trained on images enlarged in other ways.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from calotype.config.adm import AdmConfig
from calotype.config.sampling import LowresConfig
from calotype.config.stage import NetworkConfig
from calotype.diffusion import (
    DiscreteSchedule,
    EpsPrediction,
    NoiseSchedule,
    Parametrization,
    VPrediction,
    XPrediction,
    add_noise,
    augment_lowres,
    upsample_lowres,
)
from calotype.diffusion.named import build_discrete
from calotype.errors import UsageError

PARAMETRIZATIONS: dict[str, Callable[[], Parametrization]] = {
    "eps": EpsPrediction,
    "v": VPrediction,
    "x": XPrediction,
}
_TIMESTEPS = 1000  # an ADM network of this library's own schedules counts to this


@dataclass(frozen=True)
class NetworkOutput:
    """What a network answers.

    Args:
        prediction: eps, v or x, (B, 3, H, W).
        variance_fraction: see `Estimate`; None for a network that learns none.
    """

    prediction: Tensor
    variance_fraction: Tensor | None


def network_level(config: NetworkConfig, schedule: NoiseSchedule, logsnr: Tensor) -> Tensor:
    """The noise level as a network takes it: log-SNR, or the timestep for an ADM network."""
    if not isinstance(config, AdmConfig):
        return logsnr
    if isinstance(schedule, DiscreteSchedule):
        timesteps = schedule.timestep(logsnr)
    else:
        timesteps = schedule.time(logsnr) * (_TIMESTEPS - 1)
    # Whole ones are exact in float32; the schedule may have left a device without float64.
    return timesteps.to(logsnr.device, torch.float32)


def split_variance(output: Tensor, config: NetworkConfig) -> NetworkOutput:
    """Part a network's channels into the prediction and, if it learned one, the variance.

    Args:
        output: (B, 3, H, W), or (B, 6, H, W) of a network that learned its variance.
        config: the network's settings.
    """
    if not (isinstance(config, AdmConfig) and config.learned_variance):
        return NetworkOutput(output, None)
    prediction, variance = output.chunk(2, dim=1)
    return NetworkOutput(prediction, (variance + 1) / 2)


def enlarge_lowres(lowres: Tensor, size: tuple[int, int], config: LowresConfig) -> Tensor:
    """Enlarge low-resolution images (B, 3, h, w) as the stage was trained on."""
    if config.filter == "bicubic":
        return upsample_lowres(lowres, size)
    return functional.interpolate(
        lowres,
        size=size,
        mode="bicubic" if config.filter == "bicubic_antialias" else "bilinear",
        align_corners=config.filter == "bilinear_corners",
        antialias=config.filter == "bicubic_antialias",
    )


def noise_lowres(lowres: Tensor, aug_level: Tensor, noise: Tensor, config: LowresConfig) -> Tensor:
    """Noise enlarged images by `aug_level`, (B,) in [0, 1], as the stage was trained on."""
    if config.schedule is None:
        return augment_lowres(lowres, aug_level, noise)
    if not bool(((aug_level >= 0) & (aug_level <= 1)).all()):
        raise UsageError(f"aug_level is {aug_level.tolist()}, expected numbers in [0, 1]")
    schedule = build_discrete(config.schedule)
    timesteps = (aug_level * schedule.steps).round().clamp_max(schedule.steps - 1)
    return add_noise(lowres, schedule.logsnr_at(timesteps), noise)
