"""What a network predicts (eps, v or x), turned into an estimate of the clean image.

The conversion happens once, where a network becomes a `Denoiser`; guidance, thresholding and
samplers see `x_hat` only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from calotype.diffusion.schedule import alpha_sigma, broadcast_to_image, float64


@dataclass(frozen=True)
class Estimate:
    """What a denoiser says about a noisy image.

    Attributes:
        x_hat: estimate of the clean image, (B, 3, H, W), about [-1, 1].
        variance_fraction: of networks that learn the variance of the reverse step, where it lies
            between the posterior's (0) and the forward step's (1) on a log scale, like `x_hat`;
            else None.
        gradient: of a log-likelihood in z, times a scale, like `x_hat`: ancestral steps move their
            mean by it times their variance; None = nothing pulls.
    """

    x_hat: Tensor
    variance_fraction: Tensor | None = None
    gradient: Tensor | None = None


Denoiser = Callable[[Tensor, Tensor], Estimate]
"""`(z, logsnr) -> Estimate`: noisy images (B, 3, H, W) and their levels (B,), float32."""

DenoiserTransform = Callable[[Denoiser], Denoiser]
"""Guidance, thresholding and edits: they compose by nesting."""


class Parametrization(Protocol):
    """What a network is asked to predict."""

    def target(self, x: Tensor, eps: Tensor, logsnr: Tensor) -> Tensor:
        """Return what the network should answer for `z = alpha*x + sigma*eps`; like `x`."""

    def to_x(self, output: Tensor, z: Tensor, logsnr: Tensor) -> Tensor:
        """Turn the network's answer for `z` into an estimate of the clean image; like `z`."""

    def eps_error(self, logsnr: Tensor) -> Tensor:
        """Return the squared error of eps per squared error of the output, (B,) float64."""


@dataclass(frozen=True)
class EpsPrediction:
    """Predict the noise, as Imagen does (Ho et al. 2020, arXiv:2006.11239)."""

    def target(self, x: Tensor, eps: Tensor, logsnr: Tensor) -> Tensor:
        """Return `eps`."""
        return eps

    def to_x(self, output: Tensor, z: Tensor, logsnr: Tensor) -> Tensor:
        """Return `(z - sigma*output) / alpha`."""
        alpha, sigma = _scales(logsnr, z)
        return (z - sigma * output) / alpha

    def eps_error(self, logsnr: Tensor) -> Tensor:
        """Return 1: the output is eps."""
        return torch.ones_like(float64(logsnr))


@dataclass(frozen=True)
class VPrediction:
    """Predict `v = alpha*eps - sigma*x` (Salimans & Ho 2022, appendix D, arXiv:2202.00512)."""

    def target(self, x: Tensor, eps: Tensor, logsnr: Tensor) -> Tensor:
        """Return `alpha*eps - sigma*x`."""
        alpha, sigma = _scales(logsnr, x)
        return alpha * eps - sigma * x

    def to_x(self, output: Tensor, z: Tensor, logsnr: Tensor) -> Tensor:
        """Return `alpha*z - sigma*output`."""
        alpha, sigma = _scales(logsnr, z)
        return alpha * z - sigma * output

    def eps_error(self, logsnr: Tensor) -> Tensor:
        """Return `alpha^2`: `eps = sigma*z + alpha*v`."""
        return torch.sigmoid(float64(logsnr))


@dataclass(frozen=True)
class XPrediction:
    """Predict the clean image."""

    def target(self, x: Tensor, eps: Tensor, logsnr: Tensor) -> Tensor:
        """Return `x`."""
        return x

    def to_x(self, output: Tensor, z: Tensor, logsnr: Tensor) -> Tensor:
        """Return `output`."""
        return output

    def eps_error(self, logsnr: Tensor) -> Tensor:
        """Return the SNR: `eps = (z - alpha*x) / sigma`."""
        return torch.exp(float64(logsnr))


def _scales(logsnr: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    alpha, sigma = alpha_sigma(logsnr)
    return broadcast_to_image(alpha, x), broadcast_to_image(sigma, x)
