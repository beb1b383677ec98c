"""Preconditioning: a network sees what is not known beforehand of an image, at unit variance.

    x = mean + std * x'        mean = 0 for a base, the low-resolution image for a residual stage
    z' = c_in * (z - alpha * mean),   c_in = (alpha^2 std^2 + sigma^2)^-1/2
    c_noise = logsnr + 2 ln(std)

so that `z' = alpha' x' + sigma' eps` at the level `c_noise` is an ordinary, variance-preserving
diffusion of x' (Karras et al. 2022, section 5 and table 1, arXiv:2206.00364; there c_noise is
ln(sigma) / 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.conditioning import Conditioning
from calotype.diffusion import CosineSchedule, alpha_sigma, broadcast_to_image
from calotype.errors import UsageError

# Spread of images in [-1, 1]; decides how far a noised low-resolution image is believed.
IMAGE_STD = 0.6


@dataclass(frozen=True)
class Preconditioning:
    """What is known of images beforehand.

    Args:
        mean: (B, 3, H, W), or () for all.
        std: of what is left, (B,) or (), on any device.
    """

    mean: Tensor
    std: Tensor

    def normalize(self, x: Tensor) -> Tensor:
        """Of clean images, x'."""
        return (x - self.mean.to(x)) / broadcast_to_image(self.std.to(x), x)

    def denormalize(self, x: Tensor) -> Tensor:
        """Clean images, of x'."""
        return x * broadcast_to_image(self.std.to(x), x) + self.mean.to(x)

    def inputs(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """Of noisy images at `logsnr`, (B,), z': what the network sees."""
        alpha, variance = self._scales(z, logsnr)
        centred = z - broadcast_to_image(alpha, z) * self.mean.to(z)
        return centred * broadcast_to_image(variance.rsqrt(), z)  # c_in

    def start(self, eps: Tensor, logsnr: Tensor) -> Tensor:
        """Noisy images at `logsnr`, (B,), whose z' is the noise `eps`: where sampling starts."""
        alpha, variance = self._scales(eps, logsnr)
        scaled = eps * broadcast_to_image(variance.sqrt(), eps)
        return scaled + broadcast_to_image(alpha, eps) * self.mean.to(eps)

    def c_noise(self, logsnr: Tensor) -> Tensor:
        """Log-SNR of z', (B,): what conditions the network."""
        return logsnr + 2 * self.std.to(logsnr).log()

    def _scales(self, z: Tensor, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """Signal scale and variance of z - alpha * mean, float64 where `alpha_sigma` says."""
        alpha, sigma = alpha_sigma(logsnr.to(z))
        return alpha, alpha.square() * self.std.to(z).square().to(alpha) + sigma.square()


def residual_preconditioning(
    cond: Conditioning, like: Tensor, *, data_std: float
) -> Preconditioning:
    """What a noised low-resolution image says beforehand of the image a stage samples.

    Its best linear guess of the image is the mean, and what that leaves open is the spread: with
    aug_level 1 nothing is known, and a residual stage diffuses whole images.

    Args:
        cond: with `lowres` and `aug_level`.
        like: images, (B, 3, H, W).
        data_std: spread of images around their low-resolution images where these are clean.
    """
    if cond.lowres is None or cond.aug_level is None:
        raise UsageError("got no low-resolution image; expected one for a residual stage")
    # On the CPU where the device has no float64; `Preconditioning` takes numbers from anywhere.
    alpha, sigma = alpha_sigma(CosineSchedule().logsnr(cond.aug_level).float())
    # At aug_level 0 augmentation returns the image itself.
    clean = (cond.aug_level == 0).to(alpha.device)
    alpha, sigma = alpha.masked_fill(clean, 1.0), sigma.masked_fill(clean, 0.0)
    total = alpha.square() * IMAGE_STD**2 + sigma.square()
    believed = broadcast_to_image(alpha * IMAGE_STD**2 / total, like).to(cond.lowres)
    open_variance = IMAGE_STD**2 * sigma.square() / total
    std = torch.tensor(data_std)
    return Preconditioning(believed * cond.lowres, (std.square() + open_variance).sqrt())
