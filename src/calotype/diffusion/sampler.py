"""The sampler: one loop, a generator, over a grid of levels and a pure step.

Progress, previews, cancellation and time limits are the caller's business: look at the states, or
stop asking. A grid may go back towards noise (RePaint); the loop then adds noise instead.
"""

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from calotype.diffusion.parametrization import Denoiser, Estimate
from calotype.diffusion.random import NoiseSource
from calotype.diffusion.schedule import alpha_sigma
from calotype.diffusion.steps import Move, Past, SamplerState, Step, ddpm_step
from calotype.errors import UsageError


def denoising_steps(
    denoise: Denoiser,
    z: Tensor,
    levels: Tensor,
    noise: NoiseSource,
    *,
    step: Step = ddpm_step,
    level_dtype: torch.dtype = torch.float32,
) -> Iterator[SamplerState]:
    """Sample from noise to images, one state per call of the denoiser and one for the result.

    Args:
        denoise: the denoiser; it gets levels as (B,) `level_dtype` on the device of `z`.
        z: images at the first level, (B, 3, H, W): pure noise, or an image with noise added.
        levels: grid (N+1,) of log-SNR; it may fall (noise is added there), and usually ends at
            +inf, where the last state holds the finished images.
        noise: where the noise of steps comes from; asked only by steps that need it.
        step: the solver.
        level_dtype: number type the denoiser sees levels in; the grid is rounded to it.

    Returns:
        The states; the last has `index` N and the result in `z`. Gradients flow if enabled.

    Raises:
        UsageError: if `levels` is no grid.
    """
    # The network sees fewer digits: rounded first, the coefficients see the same levels as it.
    grid = _checked_grid(levels).cpu().to(level_dtype).double()
    if not bool((grid[1:] != grid[:-1]).all()):
        raise UsageError("levels repeat a level, expected every step to move: use fewer steps")

    like, shape = z.new_empty(0), z.shape  # `z` itself may be large, and is not held

    def randn() -> Tensor:
        return noise.normal(shape).to(like)

    def steps(z: Tensor) -> Iterator[SamplerState]:
        previous = None
        for index, (logsnr, logsnr_next) in enumerate(itertools.pairwise(grid)):
            if logsnr_next < logsnr:
                z, previous = renoise(z, logsnr, logsnr_next, randn()), None
                continue
            estimate = denoise(z, logsnr.to(z.device, level_dtype).expand(len(z)))
            yield (state := SamplerState(index, logsnr, z, estimate))
            z = step(Move(state, logsnr_next, randn, denoise, previous))
            previous = Past(logsnr, estimate.x_hat)
            del state, estimate  # the images before: they may be large
        yield SamplerState(len(grid) - 1, grid[-1], z, Estimate(z))

    return steps(z)  # arguments are checked now, not at the first step


def renoise(z: Tensor, logsnr: Tensor, logsnr_next: Tensor, noise: Tensor) -> Tensor:
    """Go from a level back to a noisier one by the forward process q(z_t | z_s).

    Args:
        z: images at level `logsnr`, (B, 3, H, W).
        logsnr: the present level, (), +inf for clean images.
        logsnr_next: a noisier level, ().
        noise: standard normal, like `z`.

    Reference: Lugmayr et al. 2022, algorithm 1, arXiv:2201.09865.
    """
    (alpha, _), (alpha_next, sigma_next) = alpha_sigma(logsnr), alpha_sigma(logsnr_next)
    std = float(sigma_next) * math.sqrt(-math.expm1(float(logsnr_next - logsnr)))
    return float(alpha_next / alpha) * z + std * noise


def resampling_levels(levels: Tensor, *, jump: int, repeats: int) -> Tensor:
    """Return a grid that passes every piece of `jump` steps `repeats` times, as RePaint does.

    Args:
        levels: rising grid (N+1,) ending at +inf.
        jump: length of a piece, at least 1; pieces are counted from the clean end, and the last
            step, to +inf, belongs to none.
        repeats: how often each piece is passed, at least 1; 1 returns `levels`.

    Raises:
        UsageError: if `jump` or `repeats` is out of range.

    Reference: Lugmayr et al. 2022, section 4.2, arXiv:2201.09865.
    """
    if jump < 1 or repeats < 1:
        raise UsageError(f"jump, repeats are {jump}, {repeats}, expected at least 1: raise them")
    last = len(levels) - 2
    grid, start = [levels[:1]], 0
    while start < last:
        stop = start + ((last - start) % jump or jump)
        piece = levels[start + 1 : stop + 1]
        grid += [piece] + [levels[start : start + 1], piece] * (repeats - 1)
        start = stop
    return torch.cat([*grid, levels[-1:]])


def _checked_grid(levels: Tensor) -> Tensor:
    if levels.ndim != 1 or len(levels) < 2 or not bool((levels > -math.inf).all()):
        raise UsageError(
            f"levels of shape {tuple(levels.shape)} are no grid, expected at least two log-SNRs "
            "above -inf: use sampling_levels or karras_levels"
        )
    return levels
