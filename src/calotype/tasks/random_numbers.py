"""All random numbers of a step of diffusion training; see `training.randomness`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calotype.config.diffusion import DiffusionTraining, LowresEstimatesConfig
from calotype.config.schedule import NormalLogSNR, WholeTimesteps
from calotype.diffusion import (
    DiscreteSchedule,
    GlobalNoise,
    NoiseSchedule,
    NoiseSource,
    normal_logsnr,
    stratified_levels,
    stratified_times,
)
from calotype.tasks.importance import pick_timesteps
from calotype.tasks.masks import NUMBERS
from calotype.training.randomness import Rows, mixed_seed


@dataclass(frozen=True)
class StepNumbers(Rows):
    """All random numbers of one optimizer step, on the CPU.

    Args:
        logsnr: noise levels, (B,) float64.
        eps: noise of the images, (B, 3, H, W).
        keep: False where the caption is dropped, (B,) bool.
        aug_level: noise level of the low-resolution images, (B,) in [0, 1]; None for a base.
        aug_noise: their noise, (B, 3, H, W); None for a base.
        estimate_sigma: sigma/alpha that the low-resolution images are noised to before they are
            estimated, (B,); 0 where they stay as they are; None where all do.
        estimate_noise: their noise, (B, 3, h, w).
        folded: True where the draft is that of the fold which never saw the caption, (B,) bool;
            None where there are no folds.
        keep_class: False where the class is dropped, (B,) bool; None = there are none.
        masks: what decides which pixels are known, (B, `masks.NUMBERS`); None = plain training.
        loss_weights: what losses count, (B,) float64; None = all alike.
    """

    logsnr: Tensor
    eps: Tensor
    keep: Tensor
    aug_level: Tensor | None
    aug_noise: Tensor | None
    folded: Tensor | None = None
    estimate_sigma: Tensor | None = None
    estimate_noise: Tensor | None = None
    masks: Tensor | None = None
    loss_weights: Tensor | None = None
    keep_class: Tensor | None = None


class PreparedNoise:
    """A `NoiseSource` of random numbers made ahead, for parts of a batch."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = numbers

    def normal(self, shape: Sequence[int]) -> Tensor:
        """The numbers, which must have this shape."""
        assert tuple(shape) == tuple(self._numbers.shape)
        return self._numbers

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Nothing: only normal numbers were made ahead.

        Raises:
            RuntimeError: always; conditioning in training takes normal numbers alone.
        """
        raise RuntimeError(f"got a call for uniform noise {tuple(shape)}; expected normal only")


def step_numbers(
    config: DiffusionTraining,
    schedule: NoiseSchedule,
    position: int,
    *,
    shape: torch.Size,
    estimated: torch.Size | None = None,
    probabilities: Tensor | None = None,
) -> StepNumbers:
    """The random numbers of the step at `position`, for images of `shape` (B, 3, H, W).

    Args:
        config: of the stage.
        schedule: of the stage.
        position: of the step.
        shape: of the images, (B, 3, H, W).
        estimated: of the images that the stage before estimates a fraction of, (B, 3, h, w).
        probabilities: of whole timesteps, (T,); None = all alike.
    """

    def stream(purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(mixed_seed(config.seed, position, purpose))

    noise = GlobalNoise(stream("step"))
    logsnr = _levels(config, schedule, noise, count=shape[0], probabilities=probabilities)
    keep = noise.uniform((shape[0],)) >= config.text_dropout
    aug_level = aug_noise = None
    if config.stage.lowres_resolution is not None:
        aug_level = noise.uniform((shape[0],)) * config.aug_level_max
        aug_noise = noise.normal(shape)
    eps, folded, sigma, estimate_noise, masks = noise.normal(shape), None, None, None, None
    # From streams of their own: recipes without them keep their numbers.
    if config.draft is not None and config.draft.folds > 0:
        folded = torch.rand(shape[0], generator=stream("folds")) < config.draft.fold_fraction
    if config.lowres_estimates is not None and estimated is not None:
        generator = stream("estimates")
        sigma = estimate_sigmas(config.lowres_estimates, estimated[0], generator)
        estimate_noise = torch.randn(estimated, generator=generator)
    if config.masks is not None:
        masks = torch.rand((shape[0], NUMBERS), generator=stream("masks"))
    weights = keep_class = None
    if probabilities is not None:  # the mean over uniform timesteps is meant
        timesteps = whole_timesteps(schedule, logsnr)
        weights = 1 / (len(probabilities) * probabilities[timesteps])
    if config.stage.class_count > 0:
        keep_class = torch.rand(shape[0], generator=stream("classes")) >= config.class_dropout
    step = StepNumbers(logsnr, eps, keep, aug_level, aug_noise, folded, sigma, estimate_noise)
    return replace(step, masks=masks, loss_weights=weights, keep_class=keep_class)


def _levels(
    config: DiffusionTraining,
    schedule: NoiseSchedule,
    noise: NoiseSource,
    *,
    count: int,
    probabilities: Tensor | None,
) -> Tensor:
    """The log-SNR of each image, (B,) float64."""
    if isinstance(config.levels, NormalLogSNR):
        return normal_logsnr(count, noise, mean=config.levels.mean, std=config.levels.std)
    if not isinstance(config.levels, WholeTimesteps):
        return schedule.logsnr(stratified_times(count, noise))
    assert isinstance(schedule, DiscreteSchedule)  # the settings see to it
    if probabilities is None:
        return stratified_levels(count, noise, schedule)
    return schedule.table[pick_timesteps(stratified_times(count, noise), probabilities)]


def whole_timesteps(schedule: NoiseSchedule, logsnr: Tensor) -> Tensor:
    """The timesteps (B,) int64 of levels that are entries of the schedule's table."""
    assert isinstance(schedule, DiscreteSchedule)
    return schedule.timestep(logsnr).round().long()


def estimate_sigmas(
    config: LowresEstimatesConfig, count: int, generator: torch.Generator
) -> Tensor:
    """The sigma/alpha of each row, (count,) float64; 0 = the row keeps the true image.

    As many rows as the fraction says, rounded up or down at random so that it holds on average.
    """
    uniform = torch.rand(count + 1, dtype=torch.float64, generator=generator)
    chosen = torch.randperm(count, generator=generator) < int(config.fraction * count + uniform[-1])
    ratio = config.sigma_max / config.sigma_min
    return torch.where(chosen, config.sigma_min * ratio ** uniform[:-1], 0.0)
