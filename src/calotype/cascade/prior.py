"""The prior of a cascade: from a caption to the image embedding that conditions the base.

Files: `prior/prior.json` and `prior/weights.safetensors` in the cascade's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from calotype.cascade.finite import check_finite
from calotype.cascade.io import PRIOR_FILE, WEIGHTS_FILE
from calotype.conditioning import Text, TextEmbedding, token_states
from calotype.config.prior import PriorConfig
from calotype.config.typed_json import load_settings
from calotype.diffusion import (
    Estimate,
    NoiseSource,
    PerSampleNoise,
    ancestral_step,
    denoising_steps,
    guide_batched,
)
from calotype.diffusion.named import build_discrete
from calotype.networks import PriorNetwork
from calotype.storage.weights import load_module

_STREAM = 1_000_000  # of noise: far from those of stages


class Prior(nn.Module):
    """A diffusion model of CLIP's image embeddings."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        self.network = PriorNetwork(config.network)
        self.schedule = build_discrete(config.schedule)

    @torch.no_grad()
    def sample(
        self, text: TextEmbedding, uncond: TextEmbedding | None, noise: NoiseSource
    ) -> Tensor:
        """Sample image embeddings, (B, D), of captions (B, 1 + L, D).

        Args:
            text: CLIP's embedding of each caption, then its states.
            uncond: the same of the empty or a negative caption; None = no guidance.
            noise: one source for the batch.
        """
        weight, limit = self.config.guidance_weight, self.config.clip_range
        guided = uncond is not None and weight != 1
        both = TextEmbedding.cat(text, uncond) if guided and uncond is not None else text
        predict = self.network.bind(both)

        def denoise(z: Tensor, logsnr: Tensor) -> Estimate:
            timesteps = self.schedule.timestep(logsnr).to(z.device, torch.float32)
            return Estimate(predict(z, timesteps).to(z.dtype))

        denoiser = guide_batched(denoise, weight) if guided else denoise

        def clipped(z: Tensor, logsnr: Tensor) -> Estimate:
            estimate = denoiser(z, logsnr)
            return replace(estimate, x_hat=estimate.x_hat.clamp(-limit, limit))

        like = self.network.mean
        dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
        z = noise.normal((len(text), self.config.network.clip_dim)).to(like.device, dtype)
        levels = self.schedule.sampling_levels(self.schedule.sampling_timesteps(self.config.steps))
        step = ancestral_step(0.0)
        *_, end = denoising_steps(clipped, z, levels, noise, step=step, level_dtype=dtype)
        return self.network.to_clip(end.z)

    def complete(
        self, text: TextEmbedding, uncond: TextEmbedding | None, seeds: Sequence[int]
    ) -> TextEmbedding:
        """The captions with the image embedding of each seed as their first token."""
        device, noise = self.network.mean.device, PerSampleNoise(seeds, stream=_STREAM)
        away = None if uncond is None else uncond.to(device)
        return _with_image(text, self.sample(text.to(device), away, noise).to(text.tokens))


def with_image(
    prior: Prior, text: Text | None, null: TextEmbedding, seeds: Sequence[int]
) -> TextEmbedding | None:
    """The captions, if there are any, with the image embedding that the prior samples of each.

    Raises:
        NotFiniteError: it is no number.
    """
    if text is None:
        return None
    completed = prior.complete(token_states(text), null, seeds)
    check_finite(completed.tokens, "the prior sampled", prior)
    return completed


def without_image(text: TextEmbedding) -> TextEmbedding:
    """The captions without an image embedding: its place is masked out."""
    return _with_image(text, torch.zeros_like(text.tokens[:, 0]), seen=False)


def _with_image(text: TextEmbedding, image: Tensor, *, seen: bool = True) -> TextEmbedding:
    tokens = torch.cat((image[:, None], text.tokens), dim=1)
    return TextEmbedding(tokens, nn.functional.pad(text.mask, (1, 0), value=seen))


def load_prior(folder: Path, *, sha256: str | None = None) -> Prior:
    """Read a prior, in float32 on the CPU.

    Raises:
        CalotypeError: a file is missing, truncated or damaged, or does not fit the settings.
    """
    config = load_settings(folder / PRIOR_FILE, PriorConfig)
    return load_module(folder / WEIGHTS_FILE, lambda: Prior(config), sha256=sha256)
