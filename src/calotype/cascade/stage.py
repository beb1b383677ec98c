"""A stage: one network bound into a denoiser of images, with its schedule and its sampler.

Outside, a `Denoiser` takes noisy images and returns clean ones in [-1, 1]; inside, the network sees
what `preconditioning` makes of them, and answers with eps, v or x of that.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from calotype.cascade.finite import check_finite
from calotype.cascade.network_call import Answer, NetworkCall, bound_network
from calotype.cascade.objective import PLAIN, NoisedImages, Objective
from calotype.cascade.preconditioning import Preconditioning, residual_preconditioning
from calotype.cascade.sampling import (
    batch_size,
    build_step,
    draft_start,
    grid_levels,
    guided,
    threshold_of,
    with_drafts,
)
from calotype.cascade.sizes import check_divisible
from calotype.cascade.stage_edit import KNOWN_CHANNELS, StageEdit
from calotype.cascade.tiles import OnTile, Tile, Tiling, in_bands, tiled
from calotype.cascade.timesteps import PARAMETRIZATIONS, enlarge_lowres, noise_lowres
from calotype.conditioning import Conditioning, Text
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.diffusion import (
    Denoiser,
    Estimate,
    NoiseSource,
    SamplerState,
    Step,
    add_noise,
    denoising_steps,
)
from calotype.diffusion.named import build_schedule
from calotype.errors import UsageError
from calotype.networks import UNet, build_network


class Stage(nn.Module):
    """One diffusion model of a cascade: network, schedule, parametrization, sampling defaults."""

    def __init__(self, config: StageConfig) -> None:
        super().__init__()
        self.config = config
        self.network = build_network(config.network)
        self.schedule = build_schedule(config.schedule)
        self.parametrization = PARAMETRIZATIONS[config.parametrization]()
        self.compute_dtype = torch.float32  # other than float32: the network call is autocast
        self.tiling: Tiling | None = None
        self.on_tile: OnTile | None = None
        self.answer: Answer | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def again(self) -> Stage:
        """The same network as a stage that enlarges its own images."""
        stage = copy.copy(self)
        stage.config = self.config.again()
        return stage

    def in_tiles(self, tiling: Tiling | None, on_tile: OnTile | None = None) -> Stage:
        """The same stage, whose denoiser goes through larger images tile by tile."""
        if tiling is None:
            return self
        stage = copy.copy(self)
        stage.tiling, stage.on_tile = tiling, on_tile
        return stage

    def answered(self, answer: Answer) -> Stage:
        """The same stage, whose network calls are answered by somebody else; see `Answer`."""
        stage = copy.copy(self)
        stage.answer = answer
        return stage

    def loss(
        self,
        x: Tensor,
        cond: Conditioning,
        logsnr: Tensor,
        eps: Tensor,
        *,
        objective: Objective = PLAIN,
    ) -> Tensor:
        """Training loss of each image, (B,); everything random is an argument.

        Args:
            x: clean images, (B, 3, H, W) in [-1, 1].
            cond: what conditions the network.
            logsnr: noise levels, (B,).
            eps: standard normal noise, like `x`.
            objective: what is learned by; PLAIN = the plain squared error of the output.
        """
        images = NoisedImages(x, logsnr, eps, self._preconditioning(cond, x))
        if cond.extra is not None:  # what is known replaces the network's answer
            images = replace(images, unknown=1 - cond.extra[:, KNOWN_CHANNELS - 1 :])
        # Built inside the call, so that gradients reach the text projections.
        return objective.losses(images, self._bound(cond), self.parametrization, self.schedule)

    def with_draft(self, cond: Conditioning) -> Conditioning:
        """The conditioning with its draft, made now if the network wants one and has none yet."""
        if cond.draft is not None or not isinstance(self.network, UNet):
            return cond
        if self.network.draft is None or cond.text is None:
            return cond
        return replace(cond, draft=self.network.make_draft(cond.text, cond.extra))

    def denoiser(self, cond: Conditioning) -> Denoiser:
        """The network as a function from noisy to clean images; text is encoded here, once."""
        tiles = self._tiles(cond)
        if not tiles:
            return self.untiled_denoiser(cond)
        parts = [(tile, self.untiled_denoiser(cond.crop(*tile.slices))) for tile in tiles]
        return tiled(parts, self.on_tile)

    def _tiles(self, cond: Conditioning) -> list[Tile]:
        if self.tiling is None or cond.lowres is None:
            return []
        return self.tiling.tiles(cond.lowres.shape, self.config.network.divisor)

    def untiled_denoiser(self, cond: Conditioning) -> Denoiser:
        """What `denoiser` makes for the images of one tile; apart, for adapters."""
        network = self._bound(cond)

        def denoise(z: Tensor, logsnr: Tensor) -> Estimate:
            pre = self._preconditioning(cond, z)
            inputs, level = pre.inputs(z, logsnr), pre.c_noise(logsnr)
            output = network(inputs, level)
            x_hat = self.parametrization.to_x(output.prediction, inputs, level)
            return Estimate(pre.denormalize(x_hat), output.variance_fraction)

        return denoise

    def levels(self, sampling: SamplingConfig, edit: StageEdit | None = None) -> Tensor:
        """The sampling grid, (N+1,) float64: from the edit's start, and regridded."""
        edit = StageEdit() if edit is None else edit
        if edit.start is not None and sampling.start == "draft":
            # An image of its own may be noised further than the draft: `start_time` says how far.
            sampling = replace(sampling, variety=1.0)
        levels = grid_levels(self.schedule, sampling, edit.start_time)
        return levels if edit.regrid is None else edit.regrid(levels)

    def lowres_condition(
        self,
        lowres: Tensor,
        text: Text | None,
        *,
        size: tuple[int, int],
        aug_level: float | Tensor,
        noise: NoiseSource,
    ) -> Conditioning:
        """Conditioning on low-resolution images: enlarged, noised; the same in training.

        Args:
            lowres: (B, 3, h, w) in [-1, 1].
            text: the captions.
            size: height and width of this stage's images.
            aug_level: one number for all, or (B,), in [0, 1].
            noise: where the augmentation's noise comes from.
        """
        enlarged = enlarge_lowres(lowres, size, self.config.lowres)
        levels = torch.as_tensor(aug_level, dtype=torch.float32).expand(len(lowres))
        eps = noise.normal(enlarged.shape).to(enlarged)
        levels = levels.to(enlarged.device)
        return Conditioning(text, noise_lowres(enlarged, levels, eps, self.config.lowres), levels)

    def steps(
        self,
        cond: Conditioning,
        uncond: Conditioning | None,
        noise: NoiseSource,
        *,
        size: tuple[int, int],
        sampling: SamplingConfig | None = None,
        edit: StageEdit | None = None,
    ) -> Iterator[SamplerState]:
        """Sample, one state a step; the last state's `z` is the finished image.

        Args:
            cond: with the captions.
            uncond: with the null or negative captions; None = no guidance.
            noise: one source for the batch, e.g. `PerSampleNoise`.
            size: height and width in pixels.
            sampling: how; None = the stage's own defaults.
            edit: what to start from and to keep.
        """
        sampling = self.config.sampling if sampling is None else sampling
        edit = StageEdit() if edit is None else edit
        check_divisible(size, self.config)
        self.config.check_start(sampling)
        # Drafts look at what is known, and networks that were trained to.
        extra = cond.extra if edit.extra is None else edit.extra
        uncond = None if uncond is None else replace(uncond, extra=extra)
        cond, uncond = with_drafts(self.with_draft, replace(cond, extra=extra), uncond)
        levels = self.levels(sampling, edit)
        if sampling.start == "draft" and edit.start is None:
            edit = replace(edit, start=draft_start(cond, size))
        apart = len(self._tiles(cond)) > 0
        denoise = guided(self.denoiser, cond, uncond, sampling=sampling, levels=levels, apart=apart)
        denoise = edit.applied(denoise, threshold_of(sampling))
        dtype = self.image_dtype()
        eps = noise.normal((batch_size(cond, noise), 3, *size)).to(self.device, dtype)
        level = levels[0].to(eps)
        if edit.noised is not None:
            z = edit.noised.to(eps)
        elif edit.start is None:
            z = self._preconditioning(cond, eps).start(eps, level.expand(len(eps)))
        else:
            z = add_noise(edit.start.to(eps), level, eps)
        step = self.solver(sampling)
        return denoising_steps(denoise, z, levels, noise, step=step, level_dtype=dtype)

    def solver(self, sampling: SamplingConfig) -> Step:
        """The sampler's step; apart, so that adapters can round as other code does."""
        step = build_step(sampling)
        banded = self.tiling is not None and sampling.sampler != "heun"  # it denoises in its step
        return in_bands(step) if banded else step

    @torch.no_grad()
    def sample(
        self,
        cond: Conditioning,
        uncond: Conditioning | None,
        noise: NoiseSource,
        *,
        size: tuple[int, int],
        sampling: SamplingConfig | None = None,
        edit: StageEdit | None = None,
    ) -> Tensor:
        """Images, (B, 3, H, W) in [-1, 1], or a NotFiniteError; arguments as in `steps`."""
        states = self.steps(cond, uncond, noise, size=size, sampling=sampling, edit=edit)
        (end,) = deque(states, maxlen=1)
        return check_finite(end.z, f"the {self.config.resolution} stage sampled", self).clamp(-1, 1)

    def _bound(self, cond: Conditioning) -> NetworkCall:
        """The network with its conditioning, which is completed here."""
        cond = self._with_known(self.with_draft(cond))
        if self.answer is not None:
            return partial(self.answer, self, cond)
        return bound_network(self, cond)

    def _with_known(self, cond: Conditioning) -> Conditioning:
        """Known pixels as the network would see them without noise."""
        if cond.extra is None or self.config.network.extra_channels != KNOWN_CHANNELS:
            return cond
        if cond.extra.shape[1] != KNOWN_CHANNELS:
            return cond  # the network says what is wrong
        known, mask = cond.extra[:, :3], cond.extra[:, 3:]
        seen = self._preconditioning(cond, known).normalize(known) * mask
        return replace(cond, extra=torch.cat((seen, mask), dim=1))

    def _preconditioning(self, cond: Conditioning, like: Tensor) -> Preconditioning:
        """What is known beforehand: nothing, or the noised low-resolution image."""
        if self.config.residual:
            return residual_preconditioning(cond, like, data_std=self.config.data_std)
        return Preconditioning(torch.zeros(()), torch.tensor(self.config.data_std))

    def image_dtype(self) -> torch.dtype:
        """float32; float64 where the weights are, to check numbers with."""
        dtype = next(self.parameters()).dtype
        if dtype not in (torch.float32, torch.float64):
            raise UsageError(f"got weights of {dtype}; expected float32: set stage.compute_dtype")
        return dtype
