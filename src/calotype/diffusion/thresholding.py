"""Thresholding: keep estimates of the clean image in [-1, 1] under strong guidance.

It does not commute with guidance: threshold the guided estimate, `thresholding(p)(guide(...))`.
Reference: Imagen, section 2.3.
"""

import math

import torch
from torch import Tensor

from calotype.diffusion.parametrization import Denoiser, DenoiserTransform, Estimate
from calotype.diffusion.schedule import broadcast_to_image
from calotype.errors import UsageError

LARGEST = 1e10
"""An estimate beyond is no image: at the noisiest levels a poor network is off by 1e5 or so."""


def only_numbers(x: Tensor) -> Tensor:
    """Images (B, ...) with NaN for what is infinite or larger than `LARGEST`.

    Clipped, such numbers would become black and white; NaN stays NaN, and the caller can tell.
    """
    return torch.where(x.abs() <= LARGEST, x, torch.nan)


def static_threshold(x: Tensor) -> Tensor:
    """Clip images (B, ...) to [-1, 1]."""
    return x.clamp(-1, 1)


def dynamic_threshold(x: Tensor, percentile: float, *, max_value: float | None = None) -> Tensor:
    """Clip every image to its own percentile of absolute values, and divide by it.

    Args:
        x: images, (B, ...).
        percentile: p in (0, 1]; 1 divides by the largest value. The paper's figures use 0.995.
        max_value: a ceiling for the divisor, at least 1; None for none. DeepFloyd IF uses 1.5.

    Returns:
        Images in [-1, 1]; unchanged where they were inside already.

    Raises:
        UsageError: if a number is out of range.
    """
    _check(percentile, max_value)
    size = x.flatten(1).abs()
    rank = percentile * (size.shape[1] - 1)
    above = (size > 1).sum(1).max()
    if int(above) < size.shape[1] - math.floor(rank) - 1:
        return static_threshold(x)  # every quantile is at most 1: do not select
    limit = broadcast_to_image(_order_statistic(size, rank).clamp(1, max_value), x)
    return x.clamp(-limit, limit) / limit


def thresholding(
    percentile: float | None, *, max_value: float | None = None, static: bool = True
) -> DenoiserTransform:
    """Return the transform that thresholds a denoiser's estimates.

    Args:
        percentile: of dynamic thresholding; None = static, or none at all.
        max_value: as in `dynamic_threshold`.
        static: without a percentile, clip to [-1, 1]; False = leave estimates as they are.

    Where an estimate is no number, as `only_numbers` says it, the result is NaN.
    """
    if percentile is not None:
        _check(percentile, max_value)

    def transform(denoise: Denoiser) -> Denoiser:
        def thresholded(z: Tensor, logsnr: Tensor) -> Estimate:
            estimate = denoise(z, logsnr)
            x, rest = only_numbers(estimate.x_hat), (estimate.variance_fraction, estimate.gradient)
            del estimate  # images may be large
            if percentile is None:
                return Estimate(static_threshold(x) if static else x, *rest)
            return Estimate(dynamic_threshold(x, percentile, max_value=max_value), *rest)

        return thresholded

    return transform


def _order_statistic(rows: Tensor, rank: float) -> Tensor:
    # Interpolated as in torch.quantile, which sorts everything and stops at 2^24 elements.
    below = math.floor(rank)
    low = rows.kthvalue(below + 1, dim=1, keepdim=True).values
    larger = torch.where(rows > low, rows, math.inf).amin(1)
    tied = (rows <= low).sum(1) > below + 1
    low = low.squeeze(1)
    return low if below == rank else torch.lerp(low, torch.where(tied, low, larger), rank - below)


def _check(percentile: float, max_value: float | None) -> None:
    if not 0 < percentile <= 1:
        raise UsageError(f"percentile is {percentile}, expected a number in (0, 1]: 0.995 is usual")
    if max_value is not None and not max_value >= 1:
        raise UsageError(f"max_value is {max_value}, expected at least 1: choose a larger one")
