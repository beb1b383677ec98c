"""Classifier-free guidance: functions that join denoisers into one.

Guidance weights sum to 1, so guiding x, eps or v is the same: it is written once, in x.
Weight 1 is off: `w*cond + (1-w)*uncond`.
Reference: Ho & Salimans 2022, arXiv:2207.12598; Imagen, section 2.2.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from calotype.diffusion.parametrization import Denoiser, Estimate
from calotype.diffusion.schedule import broadcast_to_image
from calotype.errors import UsageError

GuidanceWeight = float | Callable[[Tensor], Tensor]
"""A number, or a function of the levels (B,) that returns weights (B,)."""


def guide(
    cond: Denoiser, uncond: Denoiser, weight: GuidanceWeight, *, rescale: float = 0.0
) -> Denoiser:
    """Guide a denoiser away from another one.

    Where the weight is 1 only `cond` is called. A learned variance is that of `cond`.

    Args:
        cond: the denoiser with the caption.
        uncond: the denoiser with the empty or a negative caption.
        weight: the guidance weight; 1 = off.
        rescale: how far the spread of the guided estimate is brought back to that of `cond`, in
            [0, 1]; 0 = off.

    Reference: rescaling: Lin et al. 2023, section 3.4, arXiv:2305.08891 (0.7 there); here the
    spread is that of `x_hat`, per image.
    """
    _check_rescale(rescale)

    def guided(z: Tensor, logsnr: Tensor) -> Estimate:
        towards = cond(z, logsnr)
        if _is_off(weight, logsnr):
            return towards
        return _guided(towards, uncond(z, logsnr).x_hat, _weights(weight, logsnr, z), rescale)

    return guided


def guide_batched(pair: Denoiser, weight: GuidanceWeight, *, rescale: float = 0.0) -> Denoiser:
    """Guide with one call of a denoiser bound to 2B conditionings: B captions, then B nulls.

    Args:
        pair: the denoiser; gets 2B images and levels.
        weight: the guidance weight; 1 = off (but both halves are computed).
        rescale: as in `guide`.
    """
    _check_rescale(rescale)

    def guided(z: Tensor, logsnr: Tensor) -> Estimate:
        both = pair(torch.cat([z, z]), torch.cat([logsnr, logsnr]))
        towards, away = both.x_hat.chunk(2)
        fraction = both.variance_fraction
        estimate = Estimate(towards, None if fraction is None else fraction.chunk(2)[0])
        if _is_off(weight, logsnr):
            return estimate
        return _guided(estimate, away, _weights(weight, logsnr, z), rescale)

    return guided


def within_interval(
    guided: Denoiser, unguided: Denoiser, *, logsnr_low: float, logsnr_high: float
) -> Denoiser:
    """Guide only at levels in [logsnr_low, logsnr_high]; elsewhere `unguided` alone is called.

    Reference: Kynkäänniemi et al. 2024, arXiv:2404.07724.
    """
    if not logsnr_low <= logsnr_high:
        raise UsageError(
            f"interval is {logsnr_low} ... {logsnr_high}, expected low <= high: swap them"
        )

    def denoise(z: Tensor, logsnr: Tensor) -> Estimate:
        inside = (logsnr >= logsnr_low) & (logsnr <= logsnr_high)
        if bool(inside.all()):
            return guided(z, logsnr)
        outer = unguided(z, logsnr)
        if not bool(inside.any()):
            return outer
        # Levels differ within the batch.
        keep = inside.reshape(-1, *[1] * (z.ndim - 1))
        return replace(outer, x_hat=torch.where(keep, guided(z, logsnr).x_hat, outer.x_hat))

    return denoise


def oscillating_weight(
    levels: Tensor, *, high: float, low: float = 1.0, constant_steps: int = 1
) -> Callable[[Tensor], Tensor]:
    """Return a weight that alternates between two values from step to step.

    It is a function of the level: the nearest level of the grid gives the step. A solver that
    looks twice in a step therefore sees the next step's weight at its second look.

    Args:
        levels: the sampling grid (N+1,); repeated levels count once.
        high: the weight of the first steps.
        low: the weight of the step after them, then of every second one; 1 saves its second call.
        constant_steps: how many first steps have the weight `high`.

    Reference: Ho et al. 2022 (Imagen Video), arXiv:2210.02303.
    """
    grid = torch.unique(levels[torch.isfinite(levels)])  # sorted, from noisy to clean
    index = torch.arange(len(grid))
    weights = torch.where((index < constant_steps) | ((index - constant_steps) % 2 == 1), high, low)

    def weight(logsnr: Tensor) -> Tensor:
        nearest = (logsnr[:, None] - grid.to(logsnr)).abs().argmin(1)
        return weights.to(logsnr)[nearest]

    return weight


def _is_off(weight: GuidanceWeight, logsnr: Tensor) -> bool:
    return bool((weight(logsnr) == 1).all()) if callable(weight) else weight == 1


def _weights(weight: GuidanceWeight, logsnr: Tensor, z: Tensor) -> Tensor | float:
    return broadcast_to_image(weight(logsnr), z) if callable(weight) else weight


def _guided(cond: Estimate, uncond: Tensor, weight: Tensor | float, rescale: float) -> Estimate:
    x_hat = uncond + weight * (cond.x_hat - uncond)
    if rescale:
        ratio = _spread(cond.x_hat) / _spread(x_hat).clamp_min(1e-8)
        x_hat = broadcast_to_image(1 - rescale + rescale * ratio, x_hat) * x_hat
    return replace(cond, x_hat=x_hat)


def _spread(x: Tensor) -> Tensor:
    return x.flatten(1).std(1)


def _check_rescale(rescale: float) -> None:
    if not 0 <= rescale <= 1:
        raise UsageError(f"rescale is {rescale}, expected a number in [0, 1]: choose another")
