"""The learning rate as a function of the images seen: warm-up, constant, cosine decay."""

from __future__ import annotations

import math

from calotype.config.optimizer import OptimizerConfig


def decay_start(config: OptimizerConfig, total_images: int) -> float:
    """Images after which the rate decays; `total_images` when it never does."""
    return config.decay_from * total_images


def learning_rate(config: OptimizerConfig, images_seen: int, total_images: int) -> float:
    """The rate of the step that begins after `images_seen` images.

    Linear warm-up from 0 over `warmup_images`, the peak rate up to and at the start of the decay,
    then half a cosine to `final_rate` times the peak at `total_images`. The warm-up does not
    depend on the length of the run, so a run made longer has the past of a longer run.
    """
    rate = config.learning_rate
    if images_seen < config.warmup_images:
        # Half a step in, as it were: a rate of exactly 0 would waste the first step.
        rate *= (images_seen + 1) / (config.warmup_images + 1)
    start = decay_start(config, total_images)
    if images_seen <= start or start >= total_images:
        return rate
    progress = min(1.0, (images_seen - start) / (total_images - start))
    fraction = config.final_rate + (1 - config.final_rate) * 0.5 * (
        1 + math.cos(math.pi * progress)
    )
    return rate * fraction
