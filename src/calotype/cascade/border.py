"""What is known of an image before it is denoised, and what the network sees instead of it.

See `calotype.cascade.stage` for the formulas.
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
class Border:
    """What is known before denoising: x = mean + std * x'."""

    mean: Tensor | None  # (B, 3, H, W)
    std: Tensor  # (B,) or (), on any device

    def inside(self, x: Tensor) -> Tensor:
        """Images as the network's diffusion sees them."""
        centred = x if self.mean is None else x - self.mean.to(x)
        return centred / broadcast_to_image(self.std.to(x), x)

    def outside(self, x: Tensor) -> Tensor:
        """The inverse of `inside`."""
        scaled = x * broadcast_to_image(self.std.to(x), x)
        return scaled if self.mean is None else scaled + self.mean.to(x)

    def noisy_inside(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """Noisy images at `logsnr`, (B,), as noisy x' at `level(logsnr)`."""
        alpha, variance = self._scales(z, logsnr)
        centred = z
        if self.mean is not None:
            centred = z - broadcast_to_image(alpha, z) * self.mean.to(z)
        return centred * broadcast_to_image(variance.rsqrt(), z)

    def noisy_outside(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """The inverse of `noisy_inside`."""
        alpha, variance = self._scales(z, logsnr)
        scaled = z * broadcast_to_image(variance.sqrt(), z)
        if self.mean is None:
            return scaled
        return scaled + broadcast_to_image(alpha, z) * self.mean.to(z)

    def level(self, logsnr: Tensor) -> Tensor:
        """Log-SNR of x' where that of x is `logsnr`."""
        return logsnr + 2 * self.std.to(logsnr).log()

    def _scales(self, z: Tensor, logsnr: Tensor) -> tuple[Tensor, Tensor]:
        """Signal scale and variance of the noisy deviation, float64 where `alpha_sigma` says."""
        alpha, sigma = alpha_sigma(logsnr.to(z))
        variance = alpha.square() * self.std.to(z).square().to(alpha) + sigma.square()
        return alpha, variance


def residual_border(cond: Conditioning, like: Tensor, *, data_std: float) -> Border:
    """What a noised low-resolution image tells beforehand of the image a stage draws.

    Its best linear guess of the image is the mean, and what that leaves open is the spread: with
    aug_level 1 nothing is known, and a residual stage diffuses whole images.

    Args:
        cond: with `lowres` and `aug_level`.
        like: images, (B, 3, H, W).
        data_std: spread of images around their low-resolution images where these are clean.
    """
    if cond.lowres is None or cond.aug_level is None:
        raise UsageError("got no low-resolution image; expected one for a residual stage")
    # On the CPU where the device has no float64; `Border` takes numbers from anywhere.
    alpha, sigma = alpha_sigma(CosineSchedule().logsnr(cond.aug_level).float())
    # At aug_level 0 augmentation returns the image itself.
    clean = (cond.aug_level == 0).to(alpha.device)
    alpha, sigma = alpha.masked_fill(clean, 1.0), sigma.masked_fill(clean, 0.0)
    total = alpha.square() * IMAGE_STD**2 + sigma.square()
    believed = broadcast_to_image(alpha * IMAGE_STD**2 / total, like).to(cond.lowres)
    open_variance = IMAGE_STD**2 * sigma.square() / total
    std = torch.tensor(data_std)
    return Border(believed * cond.lowres, (std.square() + open_variance).sqrt())
