"""Noise schedules and sampling grids: how much noise there is at a time, as log-SNR.

Formalism (Imagen section 2.1; Kingma et al. 2021, arXiv:2107.00630): `z = alpha*x + sigma*eps`,
`logsnr = log(alpha^2 / sigma^2)`, `alpha^2 + sigma^2 = 1`. Time runs from 0 (clean) to 1 (noise).
Everything here is float64: rounding a level is the network's business, not the schedule's.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from calotype.errors import UsageError


class NoiseSchedule(Protocol):
    """Log-SNR as a strictly decreasing function of time, with its inverse."""

    def logsnr(self, t: Tensor) -> Tensor:
        """Return the float64 log-SNR at times `t` in [0, 1], any shape."""

    def time(self, logsnr: Tensor) -> Tensor:
        """Return the float64 time of a log-SNR; levels beyond the ends give 0 or 1."""


@dataclass(frozen=True)
class CosineSchedule:
    """The cosine schedule `alpha = cos(pi*t/2)`, cut to a range of log-SNR.

    `shift` is added to every level: `2*log(64/resolution)` keeps the noise of a 64x64 image at
    another resolution.
    Reference: Nichol & Dhariwal 2021, arXiv:2102.09672; cut and shift as in Hoogeboom et al. 2023,
    section 3.1, arXiv:2301.11093.
    """

    logsnr_min: float = -20.0
    logsnr_max: float = 20.0
    shift: float = 0.0

    def logsnr(self, t: Tensor) -> Tensor:
        """Return the float64 log-SNR at times `t` in [0, 1], any shape."""
        start, end = _cosine_angle(self.logsnr_max), _cosine_angle(self.logsnr_min)
        return -2 * torch.log(torch.tan(start + float64(t) * (end - start))) + self.shift

    def time(self, logsnr: Tensor) -> Tensor:
        """Return the float64 time of a log-SNR; levels beyond the ends give 0 or 1."""
        start, end = _cosine_angle(self.logsnr_max), _cosine_angle(self.logsnr_min)
        angle = torch.atan(torch.exp(-(float64(logsnr) - self.shift) / 2))
        return ((angle - start) / (end - start)).clamp(0, 1)


@dataclass(frozen=True)
class LinearSchedule:
    """The linear schedule in continuous time: `beta(t) = beta_min + (beta_max - beta_min)*t`.

    The defaults are the limit of betas 1e-4 to 0.02 over 1000 steps. Time 0 is moved to the point
    where the log-SNR is `logsnr_max` (by 2e-8), so that every level is finite.
    Reference: Ho et al. 2020, arXiv:2006.11239; Song et al. 2021, Eq. 33, arXiv:2011.13456.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    shift: float = 0.0
    logsnr_max: float = 20.0

    def logsnr(self, t: Tensor) -> Tensor:
        """Return the float64 log-SNR at times `t` in [0, 1], any shape."""
        t = self._start() + (1 - self._start()) * float64(t)
        minus_log_alpha2 = self.beta_min * t + (self.beta_max - self.beta_min) * t.square() / 2
        return -torch.log(torch.expm1(minus_log_alpha2)) + self.shift

    def time(self, logsnr: Tensor) -> Tensor:
        """Return the float64 time of a log-SNR; levels beyond the ends give 0 or 1."""
        t = self._uncut_time(float64(logsnr) - self.shift)
        return ((t - self._start()) / (1 - self._start())).clamp(0, 1)

    def _start(self) -> float:
        return float(self._uncut_time(torch.tensor(self.logsnr_max, dtype=torch.float64)))

    def _uncut_time(self, logsnr: Tensor) -> Tensor:
        # Root of the quadratic in t, in the form that does not cancel near t = 0.
        # Finite, or -inf would come out as inf / inf instead of the end of the schedule.
        minus_log_alpha2 = torch.logaddexp(torch.zeros_like(logsnr), -logsnr).clamp_max(1e300)
        slope = self.beta_max - self.beta_min
        root = torch.sqrt(self.beta_min**2 + 2 * slope * minus_log_alpha2)
        return 2 * minus_log_alpha2 / (self.beta_min + root)


def alpha_sigma(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    """Return the float64 signal and noise scales of a level, exact up to +inf (1 and 0)."""
    logsnr = float64(logsnr)
    return torch.sigmoid(logsnr).sqrt(), torch.sigmoid(-logsnr).sqrt()


def add_noise(x: Tensor, logsnr: Tensor, eps: Tensor) -> Tensor:
    """Noise clean images `x` (B, ...) to levels `logsnr` () or (B,): `z = alpha*x + sigma*eps`."""
    alpha, sigma = alpha_sigma(logsnr)
    return broadcast_to_image(alpha, x) * x + broadcast_to_image(sigma, x) * eps


def broadcast_to_image(v: Tensor, x: Tensor) -> Tensor:
    """Give `v`, () or (B,), the dtype, device and number of dimensions of `x` (B, ...)."""
    return v.to(x).reshape(-1, *[1] * (x.ndim - 1))


def sampling_levels(schedule: NoiseSchedule, steps: int, *, start_time: float = 1.0) -> Tensor:
    """Return the grid of a sampler, evenly spaced in time.

    Args:
        schedule: where the levels come from.
        steps: number of sampler steps, at least 1.
        start_time: time of the first level, in (0, 1]; below 1 for image-to-image.

    Returns:
        Levels (steps+1,), float64 on the CPU, rising and ending at +inf.

    Raises:
        UsageError: if `steps` or `start_time` is out of range.
    """
    _check_steps(steps)
    if not 0 < start_time <= 1:
        raise UsageError(f"start_time is {start_time}, expected a number in (0, 1]: choose another")
    t = torch.linspace(start_time, 0, steps + 1, dtype=torch.float64)[:-1]
    return ending_clean(schedule.logsnr(t))


def karras_levels(
    steps: int, *, sigma_max: float = 80.0, sigma_min: float = 0.02, rho: float = 5.0
) -> Tensor:
    """Return the grid of Karras et al., evenly spaced in `(sigma/alpha)^(1/rho)`.

    Args:
        steps: number of sampler steps, at least 1.
        sigma_max: noise-to-signal ratio sigma/alpha of the first level.
        sigma_min: ratio of the last level before the clean image.
        rho: how much finer the grid is near the clean image; 7 in the paper.

    Returns:
        Levels (steps+1,), float64 on the CPU, rising and ending at +inf.

    Raises:
        UsageError: if a number is out of range.

    Reference: Karras et al. 2022, Eq. 5, arXiv:2206.00364.
    """
    _check_steps(steps)
    if not (0 < sigma_min < sigma_max < math.inf and 0 < rho < math.inf):
        raise UsageError(
            f"sigma_min, sigma_max, rho are {sigma_min}, {sigma_max}, {rho}, expected "
            "0 < sigma_min < sigma_max and rho > 0: change them"
        )
    ends = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    ratio = torch.linspace(*ends, steps, dtype=torch.float64).pow(rho)
    return ending_clean(-2 * ratio.log())


def float64(v: Tensor) -> Tensor:
    """Return `v` in float64: on its own device, or on the CPU where a device has none (MPS)."""
    return (v.cpu() if v.device.type == "mps" else v).double()


def _cosine_angle(logsnr: float) -> float:
    return math.atan(math.exp(-logsnr / 2))


def ending_clean(levels: Tensor) -> Tensor:
    """Levels (N,) with a last one of clean images, (N+1,)."""
    return torch.cat([levels, levels.new_full((1,), math.inf)])


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise UsageError(f"steps is {steps}, expected at least 1: ask for more steps")
