"""Inversion: the noise from which DDIM samples a given image, as far as a denoiser can say.

The sampler's loop cannot do it: there a grid that falls means fresh noise.
"""

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from calotype.diffusion.parametrization import Denoiser, Estimate
from calotype.diffusion.schedule import alpha_sigma
from calotype.diffusion.steps import Move, SamplerState, ddim_step
from calotype.errors import UsageError


def inversion_steps(
    denoise: Denoiser,
    x: Tensor,
    levels: Tensor,
    *,
    refine: int = 0,
    level_dtype: torch.dtype = torch.float32,
) -> Iterator[SamplerState]:
    """Go from images back to the noise that `ddim_step` samples them from, one state a level.

    Plain, a step keeps the noise estimated at its own, cleaner level, though sampling will keep
    that of the noisier one: an error of first order. Each refinement samples the step from the
    guess, and corrects the guess by what that missed: a fixed-point iteration on the noise. It
    converges where the data spread wider than the last noise; from there on to clean images, a
    denoiser never makes what it takes for noise, and no start leads back to such an image.

    Args:
        denoise: the denoiser, neither clipped nor thresholded: what it cuts off could not come
            back. It gets levels as (B,) `level_dtype` on the device of `x`.
        x: images at the last level, (B, ...): clean ones where that is +inf.
        levels: rising grid (N+1,) of log-SNR that sampling will take.
        refine: corrections of each guess, one call of the denoiser each; 0 = plain.
        level_dtype: as in `denoising_steps`, so that both see the same levels.

    Returns:
        The states from the last noisy level up to the first, in whose `z` the start is; its
        `estimate`, which sampling makes first of all, is `z`.

    Raises:
        UsageError: if `levels` does not rise, or `refine` is negative.

    Reference: Song et al. 2020, section 4.3, arXiv:2010.02502; Pan et al. 2023, section 3.1,
    arXiv:2309.04907 (fixed points).
    """
    if refine < 0:
        raise UsageError(f"refine is {refine}, expected at least 0: choose another")
    grid = levels.cpu().to(level_dtype).double()
    rises = grid.ndim == 1 and len(grid) > 1 and bool((grid[1:] > grid[:-1]).all())
    if not rises or math.isinf(grid[0]):
        raise UsageError("levels do not rise, expected a grid of sampling_levels or karras_levels")

    def seen(z: Tensor, logsnr: Tensor) -> Estimate:
        return denoise(z, logsnr.to(z.device, level_dtype).expand(len(z)))

    return _steps(seen, x, grid, refine)


def _steps(seen: Denoiser, x: Tensor, grid: Tensor, refine: int) -> Iterator[SamplerState]:
    """As `inversion_steps`; `seen` takes a level ()."""

    def sampled(state: SamplerState, logsnr: Tensor) -> Tensor:  # ddim_step asks for no noise
        return ddim_step(Move(state, logsnr, lambda: torch.zeros_like(x), seen))

    index = itertools.count()
    for cleaner, logsnr in itertools.pairwise(grid.flip(0)):
        corrections = refine
        if math.isinf(cleaner):  # no noise is seen there: the first guess has none
            z, corrections = x * float(alpha_sigma(logsnr)[0]), refine + 1
        else:
            state = SamplerState(next(index), cleaner, x, seen(x, cleaner))
            yield state
            z = sampled(state, logsnr)
        gain = _gain(logsnr, cleaner, variance=x[0].numel())
        for _ in range(corrections):
            guess = SamplerState(0, logsnr, z, seen(z, logsnr))
            z = z + gain * (x - sampled(guess, cleaner))
        x = z
    yield SamplerState(next(index), grid[0], x, Estimate(x))


def _gain(logsnr: Tensor, cleaner: Tensor, *, variance: float) -> float:
    """What a guess at `logsnr` moves by for each unit that its step to `cleaner` missed.

    The inverse of that step's slope for Gaussian data of a `variance`: exact for it, and a
    contraction for every smaller one. Values in [-1, 1] have none larger than their number, along
    any direction. With a variance of infinity this is alpha_t / alpha_s, the noise of the guess.
    """
    (alpha, sigma), (alpha_next, sigma_next) = alpha_sigma(logsnr), alpha_sigma(cleaner)
    ratio = float(sigma_next / sigma)
    slope = float(alpha) * variance / (float(alpha) ** 2 * variance + float(sigma) ** 2)
    return 1 / (ratio + (float(alpha_next) - float(alpha) * ratio) * slope)
