"""Low-resolution images as the stage before makes them, to train super-resolution on.

A stage that is trained on true low-resolution images alone meets other ones when it samples: those
of the stage before, with its grain and its soft edges. Here a row's image is noised to a moderate
level and denoised by that stage with the row's caption, in a few deterministic steps. What comes
back is still aligned with its truth, and looks like the work of that stage.

The start is that of SDEdit (Meng et al. 2021, arXiv:2108.01073).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from calotype.cascade.find import find_cascade
from calotype.cascade.io import STAGE_FILE, StageEntry, load_stage, read_cascade_file
from calotype.cascade.sampling import threshold_of
from calotype.cascade.stage import Stage
from calotype.conditioning import Conditioning, Text
from calotype.config.diffusion import DiffusionTraining, LowresEstimatesConfig
from calotype.config.stage import StageConfig
from calotype.config.typed_json import load_settings
from calotype.data.batch import Batch
from calotype.data.resize import area_resize
from calotype.diffusion import (
    Denoiser,
    add_noise,
    alpha_sigma,
    broadcast_to_image,
    karras_levels,
)
from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.runtime import DTYPES, Runtime
from calotype.tasks.random_numbers import PreparedNoise, StepNumbers
from calotype.tasks.validation import numbered
from calotype.text.tokenizer_folder import KIND

_ROWS = 64  # that are estimated at once


@dataclass(frozen=True, eq=False)
class LowresEstimates:
    """The stage before, and how it estimates low-resolution images; frozen, and never saved.

    Args:
        stage: the stage before. A base sees whole images, for it may decide layout; a
            super-resolution stage the crop alone, beside its own low-resolution version of it.
        steps: it takes.
        sha256: of its weights.
    """

    stage: Stage
    steps: int
    sha256: str = ""

    @property
    def of_whole_images(self) -> bool:
        """Whether the stage before wants whole images."""
        return self.stage.config.lowres_resolution is None

    def shape(self, batch: Batch) -> torch.Size:
        """Shape of the images that are estimated, of all processes' rows, (B, 3, h, w)."""
        return torch.Size((batch.images, *self._truth(batch).shape[1:]))

    @torch.no_grad()
    def __call__(self, batch: Batch, text: Text | None, numbers: StepNumbers) -> Tensor:
        """The low-resolution images of a batch, some of them estimated.

        Args:
            batch: with whole low-resolution images, if it has crops and the stage wants them.
            text: of the batch's captions.
            numbers: of the batch: which rows, their level and noise.

        Returns:
            (B, 3, h, w); rows that are not estimated are those of `batch.lowres`.
        """
        assert batch.lowres is not None  # the settings were checked
        assert numbers.estimate_sigma is not None and numbers.estimate_noise is not None
        device, truth = self.stage.device, self._truth(batch)
        lowres, side = batch.lowres.to(device, copy=True), batch.lowres.shape[-1]
        classes = numbered(batch.labels, self.stage.config, keys=batch.keys)
        chosen = numbers.estimate_sigma.nonzero().flatten()
        for start in range(0, len(chosen), _ROWS):
            rows = chosen[start : start + _ROWS]
            told = Conditioning()
            if text is not None and self.stage.config.network.text_dim > 0:
                told = Conditioning(text[rows].to(device))
            if classes is not None:
                told = replace(told, classes=classes[rows].to(device))
            sigmas, noise = numbers.estimate_sigma[rows].tolist(), numbers.estimate_noise[rows]
            estimate = self._estimate(truth[rows].to(device), told, sigmas, noise.to(device))
            if batch.places is not None and self.of_whole_images:
                corners = batch.places[rows].tolist()
                crops = zip(estimate, corners, strict=True)
                estimate = torch.stack([x[:, i : i + side, j : j + side] for x, (i, j) in crops])
            lowres[rows.to(device)] = estimate
        return lowres

    def _truth(self, batch: Batch) -> Tensor:
        truth = batch.whole_lowres if self.of_whole_images else None
        truth = batch.lowres if truth is None else truth
        assert truth is not None
        return truth

    def _estimate(
        self, x: Tensor, told: Conditioning, sigmas: Sequence[float], eps: Tensor
    ) -> Tensor:
        sampling = self.stage.config.sampling
        levels = [
            karras_levels(
                self.steps,
                sigma_max=sigma,
                sigma_min=min(sampling.sigma_min, sigma / 2),
                rho=sampling.rho,
            )
            for sigma in sigmas
        ]
        denoise = threshold_of(sampling)(self.stage.denoiser(self._condition(x, told, eps)))
        return denoised(denoise, x, eps, torch.stack(levels)).clamp(-1, 1)

    def _condition(self, x: Tensor, told: Conditioning, noise: Tensor) -> Conditioning:
        config = self.stage.config
        if config.lowres_resolution is None:
            return told
        side = x.shape[-1] * config.lowres_resolution // config.resolution
        # At aug_level 0 there is no noise, but a source has to be given.
        cond = self.stage.lowres_condition(
            area_resize(x, side),
            told.text,
            size=(x.shape[2], x.shape[3]),
            aug_level=0.0,
            noise=PreparedNoise(noise),
        )
        return replace(cond, classes=told.classes)


def denoised(denoise: Denoiser, x: Tensor, eps: Tensor, levels: Tensor) -> Tensor:
    """Noise images and denoise them with DDIM steps, each along levels of its own.

    Args:
        denoise: the denoiser.
        x: clean images, (B, 3, h, w).
        eps: standard normal noise, like `x`.
        levels: log-SNR, (B, N+1), rising and ending at +inf.

    Reference: Song et al. 2020, Eq. 12 without noise, arXiv:2010.02502.
    """
    grid = levels.to(torch.float32).T  # as the network sees them
    z = add_noise(x, grid[0].to(x.device), eps)
    for logsnr, following in itertools.pairwise(grid):
        x_hat = denoise(z, logsnr.to(x.device)).x_hat
        (alpha, sigma), (alpha_next, sigma_next) = alpha_sigma(logsnr), alpha_sigma(following)
        ratio = sigma_next / sigma
        z = broadcast_to_image(ratio, z) * z
        z = z + broadcast_to_image(alpha_next - alpha * ratio, z) * x_hat
    return z


def check_estimates(config: DiffusionTraining) -> None:
    """Refuse a stage before that does not fit, from its settings alone.

    Raises:
        UsageError: there is no such model, or it has no such stage.
        ConfigError: the stage reads captions in another way, or crops do not fit it.
    """
    if config.lowres_estimates is None:
        return
    folder, entry = _find(config, config.lowres_estimates)
    before = load_settings(folder / entry.folder / STAGE_FILE, StageConfig)
    encoder, text_dim = read_cascade_file(folder).text_encoder, before.network.text_dim
    model = config.lowres_estimates.model
    own = (config.text_encoder, config.stage.network.text_dim)
    # Copies of tokenizers are compared when the run begins.
    copies = encoder.startswith(KIND) and config.text_encoder.startswith(KIND)
    if text_dim > 0 and (config.text_encoder if copies else encoder, text_dim) != own:
        raise ConfigError(
            f"got lowres_estimates.model={model!r}, which reads captions by {encoder!r} "
            f"({text_dim} channels) in a recipe with {own[0]!r} ({own[1]}); expected both alike: "
            "choose another model, or set lowres_estimates=null"
        )
    if before.class_count > 0 and not before.null_class and config.data.labels is None:
        raise ConfigError(
            f"got lowres_estimates.model={model!r}, which samples with classes alone, in a recipe "
            "without them; expected another model, or lowres_estimates=null"
        )
    _check_crop(config, before)


def _check_crop(config: DiffusionTraining, before: StageConfig) -> None:
    """A super-resolution stage gets crops: they must be as many of its pixels as it can take."""
    crop, lowres = config.data.crop, before.lowres_resolution
    if crop is None or lowres is None or config.stage.lowres_resolution is None:
        return
    factor = config.stage.resolution // config.stage.lowres_resolution
    side, enlarges = crop // factor, before.resolution // lowres
    if side % before.network.divisor or side % enlarges:
        raise ConfigError(
            f"got data.crop={crop}, which is {side} pixels for the {before.resolution} stage of "
            f"lowres_estimates.model; expected a multiple of {before.network.divisor} and of "
            f"{enlarges} there: choose another crop"
        )


def load_estimates(config: DiffusionTraining, runtime: Runtime) -> LowresEstimates | None:
    """The stage before, on the runtime's device and in its number type; None where none is set.

    Raises:
        CalotypeError: its files are missing or damaged.
    """
    if config.lowres_estimates is None:
        return None
    folder, entry = _find(config, config.lowres_estimates)
    stage = load_stage(folder / entry.folder, sha256=entry.sha256).to(runtime.device)
    stage.compute_dtype = DTYPES[runtime.dtype]
    return LowresEstimates(
        stage.requires_grad_(False).eval(), config.lowres_estimates.steps, entry.sha256
    )


def _find(config: DiffusionTraining, estimates: LowresEstimatesConfig) -> tuple[Path, StageEntry]:
    """The cascade of the model, and its stage before the one that is trained."""
    try:
        folder = find_cascade(estimates.model)
        entries = read_cascade_file(folder).stages
    except CalotypeError as error:
        raise UsageError(f"lowres_estimates.model: {error}") from error
    resolution = config.stage.lowres_resolution
    for entry in entries:
        if entry.folder == str(resolution):
            return folder, entry
    stages = ", ".join(entry.folder for entry in entries)
    raise UsageError(
        f"got lowres_estimates.model={estimates.model!r} with stages of {stages} pixels; expected "
        f"one of {resolution}: choose another model, or set lowres_estimates=null"
    )
