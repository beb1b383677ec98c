"""Noise schedules by their settings: by name, or the table of whole timesteps."""

from __future__ import annotations

import torch

from calotype.config.schedule import DiscreteScheduleConfig
from calotype.diffusion.discrete import (
    DiscreteSchedule,
    linear_betas,
    schedule_from_betas,
    squaredcos_betas,
)
from calotype.diffusion.schedule import CosineSchedule, LinearSchedule, NoiseSchedule


def build_schedule(config: str | DiscreteScheduleConfig) -> NoiseSchedule:
    """The schedule of settings."""
    if isinstance(config, DiscreteScheduleConfig):
        return build_discrete(config)
    return CosineSchedule() if config == "cosine" else LinearSchedule()


def build_discrete(config: DiscreteScheduleConfig) -> DiscreteSchedule:
    """The table of settings."""
    dtype = torch.float32 if config.precision == "float32" else torch.float64
    if config.betas == "linear":
        start, end = config.beta_start, config.beta_end
        betas = linear_betas(config.steps, start=start, end=end, dtype=dtype)
    else:
        betas = squaredcos_betas(config.steps, dtype=dtype)
    return schedule_from_betas(betas, spacing=config.spacing)
