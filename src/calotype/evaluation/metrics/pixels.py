"""What pixels say: PSNR, SSIM, colour shift between paired images; grid artefacts in one set.

Images are (B, 3, H, W): uint8, or floats in [-1, 1].

Reference: Wang et al. 2004, doi:10.1109/TIP.2003.819861 (SSIM); Odena et al. 2016,
doi:10.23915/distill.00003 (artefacts at the period of upsampling).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from calotype.errors import MissingExtra, UsageError

_LEAST_SSIM_SIDE = 11  # of its window
_NEAR = 2
_AT_ONCE = 16


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, (B,) float64 in dB, of paired images; inf for equal ones.

    Raises:
        UsageError: the shapes differ.
    """
    _check_pairs(x, y)
    metric = _torchmetrics().peak_signal_noise_ratio
    settings: Any = {"data_range": 255.0, "reduction": "none", "dim": (1, 2, 3)}
    return _in_parts(lambda a, b: metric(_levels(a), _levels(b), **settings), x, y)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity, (B,) float64 in [-1, 1], of paired images; 1 for equal ones.

    The range is that of pixels, 0 to 255; torchmetrics would take it from the images.

    Raises:
        UsageError: the shapes differ, or a side is below 11 pixels.
    """
    _check_pairs(x, y)
    if min(x.shape[2:]) < _LEAST_SSIM_SIDE:
        raise UsageError(
            f"got images of {x.shape[3]}x{x.shape[2]} for SSIM; expected sides of at least "
            f"{_LEAST_SSIM_SIDE}"
        )
    metric = _torchmetrics().structural_similarity_index_measure
    settings: Any = {"data_range": 255.0, "reduction": "none"}
    return _in_parts(lambda a, b: metric(_levels(a), _levels(b), **settings), x, y)


def colour_shift(sampled: Tensor, reference: Tensor) -> Tensor:
    """How much brighter each channel is than in the image it is paired with, in levels.

    Returns:
        (B, 3) float64 in [-255, 255]: red, green, blue; positive = the sample is brighter.

    Raises:
        UsageError: the shapes differ.
    """
    _check_pairs(sampled, reference)
    return mean_colour(sampled) - mean_colour(reference)


def mean_colour(images: Tensor) -> Tensor:
    """The mean of each channel, (B, 3) float64 in [0, 255]."""
    found = torch.empty(len(images), images.shape[1], dtype=torch.float64)
    for rows in torch.split(torch.arange(len(images)), _AT_ONCE):
        found[rows] = _levels(images[rows]).mean((2, 3))
    return found


def grid_artefacts(images: Tensor, period: int) -> float:
    """How much a grid of this period stands out: power at its frequencies over that beside them.

    The power is of the Fourier transforms of rows and of columns, and is averaged over them, all
    channels and images. Beside = the two frequencies on either side. To both is added what rounding
    to 8 bits would: without it flat images had nothing to divide by.

    Args:
        images: (B, 3, H, W).
        period: in pixels, at least 2, e.g. a stage's enlargement; it has to divide both sides, at
            least six times.

    Returns:
        At least 0; about 1 for noise, and for images without a grid (also constant ones).

    Raises:
        UsageError: the period does not fit.
    """
    if len(images) == 0 or images.ndim != 4:
        raise UsageError(f"got images of shape {tuple(images.shape)}; expected (B, 3, H, W)")
    if period < 2 or any(side % period or side < 6 * period for side in images.shape[2:]):
        raise UsageError(
            f"got a period of {period} for images of {images.shape[3]}x{images.shape[2]}; "
            "expected one of 2 or more that divides both sides, at least six times"
        )
    found = [_grid(images, period, axis) for axis in (2, 3)]
    peaks, beside = (sum(part) for part in zip(*found, strict=True))
    return float(peaks / beside)


def _grid(images: Tensor, period: int, axis: int) -> tuple[float, float]:
    """Mean power at a grid's frequencies along an axis, and beside them."""
    side = images.shape[axis]
    rounding = images.numel() / 12  # of all lines: side times the variance of what is cut off
    power = torch.full((side // 2 + 1,), rounding, dtype=torch.float64)
    for part in torch.split(images, _AT_ONCE):
        lines = _levels(part).movedim(axis, -1)
        spectrum = torch.fft.rfft(lines - lines.mean(-1, keepdim=True)).abs().square()
        power += spectrum.flatten(0, 2).sum(0)
    peaks = torch.arange(1, period // 2 + 1) * (side // period)
    steps = torch.tensor([step for step in range(-_NEAR, _NEAR + 1) if step])
    beside = peaks[:, None] + steps
    beside = torch.minimum(beside, side - beside)  # the spectrum is symmetric
    return float(power[peaks].mean()), float(power[beside].mean())


def _levels(images: Tensor) -> Tensor:
    """As float64 from 0 to 255."""
    if images.dtype == torch.uint8:
        return images.double()
    return (images.double() + 1) * 127.5


def _check_pairs(x: Tensor, y: Tensor) -> None:
    if x.shape != y.shape or x.ndim != 4:
        raise UsageError(
            f"got {tuple(x.shape)} and {tuple(y.shape)}; expected equal shapes, (B, 3, H, W)"
        )


def _in_parts(metric: Any, x: Tensor, y: Tensor) -> Tensor:
    found = torch.empty(len(x), dtype=torch.float64)
    for rows in torch.split(torch.arange(len(x)), _AT_ONCE):
        found[rows] = metric(x[rows], y[rows]).reshape(-1)
    return found


def _torchmetrics() -> Any:
    try:
        from torchmetrics.functional import image
    except ImportError as error:
        raise MissingExtra("evaluate", "torchmetrics") from error
    return image
