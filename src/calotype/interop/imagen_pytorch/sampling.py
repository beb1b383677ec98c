"""Sampling with a cascade: every U-Net bound to its conditioning, and this library's sampler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from calotype.cascade.stage_edit import KnownPixels
from calotype.conditioning import TextEmbedding
from calotype.diffusion import (
    Denoiser,
    Estimate,
    GlobalNoise,
    add_noise,
    denoising_steps,
    resampling_levels,
    thresholding,
)
from calotype.errors import UsageError
from calotype.interop.imagen_pytorch.config import SampleOptions
from calotype.interop.imagen_pytorch.formulation import Formulation, Network, churned_levels
from calotype.interop.imagen_pytorch.images import as_float
from calotype.interop.imagen_pytorch.inputs import Guidance, TextState, UnetInputs
from calotype.interop.imagen_pytorch.layers import resized
from calotype.interop.imagen_pytorch.options import each
from calotype.interop.imagen_pytorch.presets import real_unet
from calotype.interop.imagen_pytorch.unet import Unet
from calotype.progress import Display

if TYPE_CHECKING:
    from calotype.interop.imagen_pytorch.cascade import CascadedUnets


class _ScaledNoise(GlobalNoise):
    def __init__(self, scale: float) -> None:
        super().__init__(torch.default_generator)
        self._scale = scale

    def normal(self, shape: Sequence[int]) -> Tensor:
        return super().normal(shape) * self._scale


class CascadeSampler:
    """Samples with one U-Net of a cascade after the other, for `sample` with its options.

    Each stage diffuses as `formulations` say; `text` is None for a cascade without text.
    """

    def __init__(
        self,
        cascade: CascadedUnets,
        formulations: Sequence[Formulation],
        options: SampleOptions,
        text: TextEmbedding | None,
    ) -> None:
        count = len(cascade.unets)
        self.cascade, self.settings, self.options = cascade, cascade.settings, options
        self.formulations, self.text = formulations, text
        self.own = each(options, "cond_scale init_images skip_steps", count)
        self.thresholds = each(cascade.settings, "dynamic_thresholding", count)
        self.noise = GlobalNoise(torch.default_generator)
        if any(own.cond_scale != 1 for own in self.own) and self.settings.cond_drop_prob == 0:
            raise UsageError(
                f"got cond_scale={options.cond_scale} with cond_drop_prob=0: without dropped "
                "captions in training there is nothing to guide away from; use cond_scale=1"
            )

    def images(self) -> Iterator[Tensor]:
        """The images of each stage, (B, C, H, W) in [-1, 1]."""
        options, start, inpainted = self.options, None, self.options.inpaint_images
        first, last = options.stages(len(self.own))
        count = options.batch_size
        if inpainted is not None and count == 1:
            count = len(inpainted)
        if first > 1:
            given = options.start_image_or_video
            start = self._fitted(given, self.settings.sizes[first - 2]).to(self.cascade.device)
            count = len(start)
        count = count if self.text is None else len(self.text.tokens)
        for index in range(first - 1, last):
            unet = real_unet(self.cascade.unets[index], index + 1)
            with self.cascade.alone_on_gpu(unet, options.use_one_unet_in_gpu):
                start = self._stage(unet, index, count, start)
            yield start

    def _stage(self, unet: Unet, index: int, count: int, lowres: Tensor | None) -> Tensor:
        formulation, size = self.formulations[index], self.settings.sizes[index]
        denoise = self._denoiser(unet, index, self._network(unet, index, count, lowres))
        levels = self._levels(formulation, self.own[index].skip_steps)
        noise = self.noise
        eps = noise.normal((count, self.settings.channels, size, size))
        z = eps = eps.to(next(unet.parameters()).device)
        if self.own[index].init_images is not None:
            level = levels[0].float().expand(count).to(eps.device)
            z = add_noise(self._fitted(self.own[index].init_images, size).to(eps), level, eps)
        if formulation.churn is not None:
            noise = _ScaledNoise(formulation.churn.noise_scale)
        title, quiet = f"U-Net {index + 1}", not self.options.use_tqdm
        with Display(title, len(levels), quiet=quiet) as display:
            for state in denoising_steps(denoise, z, levels, noise, step=formulation.step):
                z = state.z
                display.advance(1)
        return z.clamp(-1, 1)

    def _levels(self, formulation: Formulation, skip: int | None) -> Tensor:
        """The sampling levels: the first `skip` left out, repeated, churned."""
        steps, skip = len(formulation.levels) - 1, 0 if skip is None else skip
        if not 0 <= skip < steps:
            raise UsageError(f"got skip_steps={skip}; expected 0 to {steps - 1}")
        levels, repeats = formulation.levels[skip:], self.options.inpaint_resample_times
        if self.options.inpaint_images is not None and repeats > 1:  # RePaint
            levels = resampling_levels(levels, jump=1, repeats=repeats)
        if formulation.churn is not None:
            levels = churned_levels(levels, formulation.churn, steps=steps)
        return levels

    def _network(self, unet: Unet, index: int, count: int, lowres: Tensor | None) -> Network:
        """The network with all its conditioning, guided."""
        options, settings = self.options, self.settings
        text = null = times = None
        weight = self.own[index].cond_scale
        if self.text is not None:
            keep = torch.ones(count, dtype=torch.bool, device=self.text.tokens.device)
            text = encoded(unet, self.text, keep)
            null = encoded(unet, self.text, ~keep) if weight != 1 else None
        if lowres is not None and index > 0:
            level = options.lowres_sample_noise_level
            level = settings.lowres_sample_noise_level if level is None else level
            lowres = resized(lowres, settings.sizes[index], settings.resize_mode)
            times = torch.full((count,), level)
            lowres, times = self.cascade.augmented(lowres, times, self.noise)
        extra = options.cond_images
        extra = None if extra is None else as_float(extra, like=next(unet.parameters()))
        inputs = UnetInputs(text, lowres, times, extra)
        parallel = options.cfg_keep_parallel_frac
        guidance = Guidance(weight, options.cfg_remove_parallel_component, parallel)
        return guided_network(unet, inputs, null, guidance)

    def _denoiser(self, unet: Unet, index: int, network: Network) -> Denoiser:
        formulation, options = self.formulations[index], self.options
        last: list[Tensor] = []  # the last estimate, for networks conditioned on it

        def plain(z: Tensor, logsnr: Tensor) -> Estimate:
            return Estimate(formulation.estimate(network, z, logsnr, last[0] if last else None))

        dynamic = self.thresholds[index].dynamic_thresholding
        percentile = self.settings.dynamic_thresholding_percentile
        denoise = thresholding(percentile if dynamic else None)(plain)
        if options.inpaint_images is not None:
            size = self.settings.sizes[index]
            mask = options.inpaint_masks.float()
            mask = resized(mask[:, None] if mask.ndim == 3 else mask, size, "nearest").bool()
            denoise = KnownPixels(
                self._fitted(options.inpaint_images, size), mask, seamless=False
            ).keep(denoise)
        if not unet.self_cond:
            return denoise

        def remembering(z: Tensor, logsnr: Tensor) -> Estimate:
            estimate = denoise(z, logsnr)
            last[:] = [estimate.x_hat]
            return estimate

        return remembering

    def _fitted(self, image: Tensor, size: int) -> Tensor:
        normalized = self.cascade.normalized(as_float(image))
        return resized(normalized, size, self.settings.resize_mode)


def encoded(unet: Unet, text: TextEmbedding, keep: Tensor) -> TextState:
    """Captions as the network sees them; without any token, or where `keep` is False: the null."""
    return unet.encode_text(text.tokens, text.mask, keep & text.mask.any(1))


def guided_network(
    unet: Unet, inputs: UnetInputs, null: TextState | None, guidance: Guidance
) -> Network:
    """A network bound to its inputs, guided away from the null caption; None = not guided."""
    if null is None:
        return lambda z, time, self_cond: unet.predict(z, time, inputs, self_cond=self_cond)
    both = inputs.doubled(null)

    def guided(z: Tensor, time: Tensor, self_cond: Tensor | None) -> Tensor:
        again = None if self_cond is None else torch.cat((self_cond, self_cond))
        output = unet.predict(torch.cat((z, z)), torch.cat((time, time)), both, self_cond=again)
        return guidance(*output.chunk(2))

    return guided
