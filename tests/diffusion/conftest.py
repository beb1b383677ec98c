"""Exact denoisers: the posterior mean E[x | z] of data whose distribution is known.

Data are (B, D) or (B, 3, H, W) in float64; levels arrive in float32, as networks get them.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from calotype.diffusion import Denoiser, Estimate, GlobalNoise, alpha_sigma, broadcast_to_image


def _gaussian(mean: float, std: float) -> Denoiser:
    def denoise(z: Tensor, logsnr: Tensor) -> Estimate:
        assert logsnr.dtype == torch.float32
        assert logsnr.shape == (len(z),)
        alpha, sigma = (broadcast_to_image(v, z) for v in alpha_sigma(logsnr))
        gain = alpha * std**2 / (alpha**2 * std**2 + sigma**2)
        return Estimate(mean + gain * (z - alpha * mean))

    return denoise


def _mixture(means: Tensor, weights: Tensor, std: float) -> Denoiser:
    """Points (K, D), their weights (K,) and common spread; 0 = a finite data set."""

    def denoise(z: Tensor, logsnr: Tensor) -> Estimate:
        alpha, sigma = (v[:, None] for v in alpha_sigma(logsnr))
        variance = alpha**2 * std**2 + sigma**2  # (B, 1)
        distance = (z[:, None] - alpha[:, :, None] * means).square().sum(2)  # (B, K)
        belief = torch.softmax(weights.log() - distance / (2 * variance), 1)  # (B, K)
        centre = belief @ means
        return Estimate(centre + alpha * std**2 / variance * (z - alpha * centre))

    return denoise


def _exact_gaussian_flow(z: Tensor, start: Tensor, end: Tensor, mean: float, std: float) -> Tensor:
    """Solve the probability-flow ODE between two levels: it keeps the quantile of every pixel."""
    (a, s), (a_end, s_end) = alpha_sigma(start), alpha_sigma(end)
    before = math.sqrt(a**2 * std**2 + s**2)
    after = math.sqrt(a_end**2 * std**2 + s_end**2)
    return a_end * mean + after / before * (z - a * mean)


def _implied_noise(x: Tensor, z: Tensor, logsnr: Tensor) -> Tensor:
    """The eps that an estimate x of z means: (z - alpha*x) / sigma."""
    alpha, sigma = (broadcast_to_image(v, z) for v in alpha_sigma(logsnr))
    return (z - alpha * x) / sigma


@pytest.fixture
def implied_noise() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    return _implied_noise


@pytest.fixture
def gaussian() -> Callable[[float, float], Denoiser]:
    return _gaussian


@pytest.fixture
def mixture() -> Callable[[Tensor, Tensor, float], Denoiser]:
    return _mixture


@pytest.fixture
def exact_gaussian_flow() -> Callable[..., Tensor]:
    return _exact_gaussian_flow


@pytest.fixture
def noise() -> GlobalNoise:
    return GlobalNoise(torch.Generator().manual_seed(7))
