"""Solver steps: pure arithmetic from one noise level to the next, cleaner one.

A step is `Move -> z`: it reads the state at the present level and returns the images at the next.
Coefficients are Python floats from the float64 grid on the CPU: no synchronisation with a device,
no rounding, and exact at +inf, where every step returns its estimate of the clean image.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.diffusion.parametrization import Denoiser, Estimate
from calotype.diffusion.schedule import alpha_sigma
from calotype.errors import UsageError


@dataclass(frozen=True)
class SamplerState:
    """Where a sampler is, after looking at one level.

    Attributes:
        index: position in the grid, 0 ... steps; `index / steps` is the progress.
        logsnr: the level, () float64 on the CPU.
        z: images at that level, (B, 3, H, W).
        estimate: what the denoiser says about `z`; at the end of the grid, `z` itself.
    """

    index: int
    logsnr: Tensor
    z: Tensor
    estimate: Estimate


@dataclass(frozen=True)
class Past:
    """What is kept of the level before: its log-SNR, as in `SamplerState`, and its `x_hat`."""

    logsnr: Tensor
    x_hat: Tensor


@dataclass(frozen=True)
class Move:
    """All a step may look at.

    Attributes:
        state: the present level, images and estimate.
        logsnr_next: the next level, () float64 on the CPU, above the present one; +inf = clean.
        randn: makes standard normal noise like `z`; a deterministic step never calls it.
        denoise: the denoiser, for a second look.
        previous: one step before; None at the start and after going back to noise.
    """

    state: SamplerState
    logsnr_next: Tensor
    randn: Callable[[], Tensor]
    denoise: Denoiser
    previous: Past | None = None


Step = Callable[[Move], Tensor]
"""One step of a solver: the images at `logsnr_next`."""


def ancestral_step(interpolation: float) -> Step:
    """Return the ancestral step with a variance between two bounds, on a log scale.

    The noise has the standard deviation `(c*sigma_s^2)^((1-g)/2) * (c*sigma_t^2)^(g/2)` with
    `c = 1 - exp(logsnr_t - logsnr_s)`; g is the estimate's `variance_fraction` where a model has
    learned one, else `interpolation`: 0 for the posterior's, 1 for the forward step's variance.
    The mean is moved by the variance times the estimate's `gradient`; the step to the clean image
    adds no noise, and is not moved.

    Reference: Imagen, section 2.1; learned: Nichol & Dhariwal 2021, Eq. 15, arXiv:2102.09672;
    moved: Dhariwal & Nichol 2021, algorithm 1, arXiv:2105.05233.
    """
    if not 0 <= interpolation <= 1:
        raise UsageError(f"interpolation is {interpolation}, expected a number in [0, 1]")

    def step(move: Move) -> Tensor:
        mean = _posterior_mean(move, move.state.estimate.x_hat)
        if math.isinf(move.logsnr_next):
            return mean
        lower, upper = _bounds_of_std(move)
        fraction = move.state.estimate.variance_fraction
        if fraction is None:
            return _noised(mean, _between(lower, upper, interpolation), move)
        log_std = math.log(lower) + fraction.to(mean) * (math.log(upper) - math.log(lower))
        return _noised(mean, log_std.exp(), move)

    return step


ddpm_step: Step = ancestral_step(0.0)
"""The ancestral step with the posterior's variance (Ho et al. 2020, arXiv:2006.11239)."""


def ddim_step(move: Move) -> Tensor:
    """Keep the estimated noise: `alpha_s*x_hat + sigma_s*eps_hat`. Deterministic, first order.

    Reference: Song et al. 2020, Eq. 12 without noise, arXiv:2010.02502.
    """
    return _ddim(move, move.state.estimate.x_hat)


def dpmpp_2m_step(move: Move) -> Tensor:
    """DPM-Solver++(2M): DDIM with an extrapolated estimate. Deterministic, second order.

    Reference: Lu et al. 2022, algorithm 2, arXiv:2211.01095.
    """
    return _ddim(move, _extrapolated(move))


def dpmpp_2m_sde_step(move: Move) -> Tensor:
    """SDE-DPM-Solver++(2M): the ancestral step with an extrapolated estimate, moved as that is.

    Reference: Lu et al. 2022, arXiv:2211.01095.
    """
    mean = _posterior_mean(move, _extrapolated(move))
    return mean if math.isinf(move.logsnr_next) else _noised(mean, _bounds_of_std(move)[0], move)


def heun_step(move: Move) -> Tensor:
    """Heun: a DDIM step, then again with the mean of both ends' estimates. Second order.

    It denoises twice a step, once in the step to the clean image. The trapezoid is taken of
    `x_hat`, the linear part being solved exactly, so the correction stays bounded in a step across
    much noise. Karras et al. 2022 (algorithm 1, arXiv:2206.00364) take it of eps, which magnifies
    it by (sigma_t*alpha_s) / (alpha_t*sigma_s): a thousand in the first step of a cosine grid.
    Reference: Lu et al. 2022, algorithm 1 (2S) with r = 1, arXiv:2211.01095.
    """
    x_hat = move.state.estimate.x_hat
    z_next = _ddim(move, x_hat)
    if math.isinf(move.logsnr_next):
        return z_next
    levels = move.logsnr_next.to(z_next.device, torch.float32).expand(len(z_next))
    return _ddim(move, (x_hat + move.denoise(z_next, levels).x_hat) / 2)


def _ddim(move: Move, x_hat: Tensor) -> Tensor:
    z = move.state.z
    alpha, sigma = _scales(move.state.logsnr)
    alpha_next, sigma_next = _scales(move.logsnr_next)
    ratio = sigma_next / sigma
    return ratio * z + (alpha_next - alpha * ratio) * x_hat.to(z.dtype)


def _posterior_mean(move: Move, x_hat: Tensor) -> Tensor:
    # Mean of q(z_s | z_t, x): Kingma et al. 2021, appendix A.4, arXiv:2107.00630.
    z, difference = move.state.z, float(move.state.logsnr - move.logsnr_next)
    alpha, alpha_next = _scales(move.state.logsnr)[0], _scales(move.logsnr_next)[0]
    keep = math.exp(difference) * alpha_next / alpha
    return keep * z - math.expm1(difference) * alpha_next * x_hat.to(z.dtype)


def _bounds_of_std(move: Move) -> tuple[float, float]:
    # Standard deviations of q(z_s | z_t, x) and of the forward step q(z_t | z_s).
    root = math.sqrt(-math.expm1(float(move.state.logsnr - move.logsnr_next)))
    return root * _scales(move.logsnr_next)[1], root * _scales(move.state.logsnr)[1]


def _noised(mean: Tensor, std: float | Tensor, move: Move) -> Tensor:
    # A sample of the step: its mean, moved where something pulls, and noise.
    gradient = move.state.estimate.gradient
    if gradient is not None:
        mean = mean + std * std * gradient.to(mean)
    return mean + std * move.randn()


def _between(lower: float, upper: float, fraction: float) -> float:
    return math.exp((1 - fraction) * math.log(lower) + fraction * math.log(upper))


def _extrapolated(move: Move) -> Tensor:
    # Linear in logsnr to the middle of the step; first order at the start and at the clean end.
    state, previous = move.state, move.previous
    if previous is None or math.isinf(move.logsnr_next):
        return state.estimate.x_hat
    ratio = float((move.logsnr_next - state.logsnr) / (state.logsnr - previous.logsnr))
    return state.estimate.x_hat + ratio / 2 * (state.estimate.x_hat - previous.x_hat)


def _scales(logsnr: Tensor) -> tuple[float, float]:
    alpha, sigma = alpha_sigma(logsnr)
    return float(alpha), float(sigma)
