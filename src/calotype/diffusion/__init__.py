"""Diffusion: pure mathematics on tensors, between a network's output and a finished image.

In: noisy images, noise levels, functions that denoise, sources of noise. Out: losses, levels,
estimates, images. It may import torch, `calotype.errors`, the settings of schedules
(`calotype.config.schedule`) and nothing else of the package.

Numerical rules:
- The noise level is `logsnr`; `alpha = sqrt(sigmoid(logsnr))`, `sigma = sqrt(sigmoid(-logsnr))`,
  never one from the other: in float32 at logsnr = -20 the detour gives alpha = 0.
- `1 - exp(a)` is `-expm1(a)`. Both are exact at +inf, so the last step returns `x_hat` itself.
- Levels and coefficients are float64 on the CPU; images keep the dtype they came in (float32);
  networks get levels in float32, and only their call is autocast.
"""

from calotype.diffusion.augmentation import augment_lowres, upsample_lowres
from calotype.diffusion.discrete import (
    DiscreteSchedule,
    linear_betas,
    schedule_from_betas,
    squaredcos_betas,
)
from calotype.diffusion.guidance import (
    GuidanceWeight,
    guide,
    guide_batched,
    oscillating_weight,
    within_interval,
)
from calotype.diffusion.inversion import inversion_steps
from calotype.diffusion.loss import (
    Weighting,
    counted_where,
    denoising_loss,
    min_snr_weighting,
    normal_logsnr,
    prediction_loss,
    sigmoid_weighting,
    simple_weighting,
    stratified_levels,
    stratified_times,
)
from calotype.diffusion.parametrization import (
    Denoiser,
    DenoiserTransform,
    EpsPrediction,
    Estimate,
    Parametrization,
    VPrediction,
    XPrediction,
)
from calotype.diffusion.random import GlobalNoise, NoiseSource, PerSampleNoise
from calotype.diffusion.sampler import denoising_steps, renoise, resampling_levels
from calotype.diffusion.schedule import (
    CosineSchedule,
    LinearSchedule,
    NoiseSchedule,
    add_noise,
    alpha_sigma,
    broadcast_to_image,
    karras_levels,
    sampling_levels,
)
from calotype.diffusion.steps import (
    Move,
    Past,
    SamplerState,
    Step,
    ancestral_step,
    ddim_step,
    ddpm_step,
    dpmpp_2m_sde_step,
    dpmpp_2m_step,
    heun_step,
)
from calotype.diffusion.thresholding import (
    dynamic_threshold,
    only_numbers,
    static_threshold,
    thresholding,
)
from calotype.diffusion.variational import (
    Bound,
    bound_terms,
    prior_term,
    some_timesteps,
    variational_bound,
)

__all__ = [
    "Bound", "CosineSchedule", "Denoiser", "DenoiserTransform", "DiscreteSchedule", "EpsPrediction",
    "Estimate", "GlobalNoise", "GuidanceWeight", "LinearSchedule", "Move", "NoiseSchedule",
    "NoiseSource", "Parametrization", "Past", "PerSampleNoise", "SamplerState", "Step",
    "VPrediction", "Weighting", "XPrediction", "add_noise", "alpha_sigma", "ancestral_step",
    "augment_lowres", "bound_terms", "broadcast_to_image", "counted_where", "ddim_step",
    "ddpm_step", "denoising_loss", "denoising_steps", "dpmpp_2m_sde_step", "dpmpp_2m_step",
    "dynamic_threshold", "guide", "guide_batched", "heun_step", "inversion_steps", "karras_levels",
    "linear_betas", "min_snr_weighting", "normal_logsnr", "only_numbers", "oscillating_weight",
    "prediction_loss", "prior_term", "renoise", "resampling_levels", "sampling_levels",
    "schedule_from_betas", "sigmoid_weighting", "simple_weighting", "some_timesteps",
    "squaredcos_betas", "static_threshold", "stratified_levels",
    "stratified_times", "thresholding", "upsample_lowres",
    "variational_bound", "within_interval",
]  # fmt: skip
