"""Sampling settings as mathematics: the solver's step, the grid of levels, guidance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from calotype.conditioning import Conditioning
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.diffusion import (
    Denoiser,
    DenoiserTransform,
    DiscreteSchedule,
    NoiseSchedule,
    NoiseSource,
    Step,
    ancestral_step,
    ddim_step,
    dpmpp_2m_sde_step,
    dpmpp_2m_step,
    guide,
    guide_batched,
    heun_step,
    karras_levels,
    only_numbers,
    oscillating_weight,
    sampling_levels,
    thresholding,
    within_interval,
)
from calotype.errors import UsageError


def build_step(sampling: SamplingConfig) -> Step:
    """The sampler's step that `sampling` names."""
    match sampling.sampler:
        case "ddpm":
            return ancestral_step(sampling.ddpm_interpolation)
        case "ddim":
            return ddim_step
        case "dpmpp_2m":
            return dpmpp_2m_step
        case "dpmpp_2m_sde":
            return dpmpp_2m_sde_step
        case "heun":
            return heun_step


def grid_levels(schedule: NoiseSchedule, sampling: SamplingConfig, start_time: float) -> Tensor:
    """The sampling grid, (N+1,) float64, from `start_time` in (0, 1] to clean."""
    if sampling.grid == "schedule" and isinstance(schedule, DiscreteSchedule):
        timesteps = sampling.timesteps
        if timesteps is None:
            timesteps = tuple(schedule.sampling_timesteps(sampling.steps))
        return schedule.sampling_levels(timesteps, start_time=start_time)
    if sampling.timesteps is not None:
        raise UsageError("got timesteps for a stage without a table of them; expected steps")
    if sampling.grid == "schedule":
        return sampling_levels(schedule, sampling.steps, start_time=start_time)
    sigma_max = sampling.first_sigma
    if start_time < 1:
        logsnr = schedule.logsnr(torch.tensor(start_time, dtype=torch.float64))
        sigma_max = min(sigma_max, float(torch.exp(-logsnr / 2)))
    sigma_min = min(sampling.sigma_min, sigma_max / 2)
    ends = {"sigma_max": sigma_max, "sigma_min": sigma_min}
    return karras_levels(sampling.steps, **ends, rho=sampling.rho)


def guided(
    bind: Callable[[Conditioning], Denoiser],
    cond: Conditioning,
    uncond: Conditioning | None,
    *,
    sampling: SamplingConfig,
    levels: Tensor,
    apart: bool = False,
) -> Denoiser:
    """The guided and thresholded denoiser that `sampling` asks for.

    Args:
        bind: makes a denoiser of its conditioning.
        cond: with the captions.
        uncond: with the null or negative captions; None = no guidance.
        sampling: the settings.
        levels: the sampling grid, (N+1,).
        apart: denoise with and without captions one after the other, in less memory.
    """
    threshold = threshold_of(sampling)
    weight, rescale = sampling.guidance_weight, sampling.guidance_rescale
    if uncond is None or weight == 1:
        return threshold(bind(cond))
    oscillating = sampling.oscillating_guidance
    chosen = oscillating_weight(levels, high=weight) if oscillating else weight
    if sampling.guidance_interval is None and not apart:
        both = bind(Conditioning.cat(cond, uncond))
        return threshold(guide_batched(both, chosen, rescale=rescale))
    alone = bind(cond)
    guiding = guide(alone, bind(uncond), chosen, rescale=rescale)
    if sampling.guidance_interval is None:
        return threshold(guiding)
    high, low = (-2 * torch.tensor(sampling.guidance_interval, dtype=torch.float64).log()).tolist()
    return threshold(within_interval(guiding, alone, logsnr_low=low, logsnr_high=high))


def told_nothing(cond: Conditioning, config: StageConfig) -> Conditioning:
    """The other half of guidance: the null caption and, where that was trained, the null class."""
    null = cond.null()
    return null if config.null_class else replace(null, classes=cond.classes)


def threshold_of(sampling: SamplingConfig) -> DenoiserTransform:
    """The thresholding that `sampling` asks for: dynamic, static or none."""
    return thresholding(
        sampling.threshold_percentile,
        max_value=sampling.threshold_ceiling,
        static=sampling.static_clip,
    )


def with_drafts(
    make: Callable[[Conditioning], Conditioning], cond: Conditioning, uncond: Conditioning | None
) -> tuple[Conditioning, Conditioning | None]:
    """Both with drafts: reading the basis, and what known pixels change, costs no more for two."""
    if uncond is None or cond.draft is not None or uncond.draft is not None:
        return make(cond), None if uncond is None else make(uncond)
    draft = make(Conditioning.cat(cond, uncond)).draft
    one, other = (None, None) if draft is None else draft.chunk(2)
    return replace(cond, draft=one), replace(uncond, draft=other)


def draft_start(cond: Conditioning, size: tuple[int, int]) -> Tensor:
    """The draft as an image to start from, (B, 3, *size), clipped to [-1, 1]."""
    if cond.draft is None:
        raise UsageError("got no text to make a draft of; expected a TextEmbedding")
    draft = only_numbers(cond.draft).clamp(-1, 1)
    return F.interpolate(draft, size, mode="bilinear", align_corners=False)


def batch_size(cond: Conditioning, noise: NoiseSource) -> int:
    """How many images there are to sample."""
    if cond.text is not None:
        return len(cond.text)
    if cond.classes is not None:
        return len(cond.classes)
    if cond.lowres is not None:
        return len(cond.lowres)
    size = getattr(noise, "batch_size", None)
    if size is None:
        raise UsageError(
            "got no text, no classes, no image and no seeds; expected something to sample"
        )
    return int(size)
