"""What is known of a picture before it is denoised, and what the network sees instead of it.

See `calotype.cascade.stage` for the formulas.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from calotype.diffusion import alpha_sigma, broadcast_to_image


@dataclass(frozen=True)
class Border:
    """What is known before denoising: x = mean + std * x'."""

    mean: Tensor | None  # (B, 3, H, W)
    std: Tensor  # (B,) or ()

    def inside(self, x: Tensor) -> Tensor:
        """Pictures as the network's diffusion sees them."""
        centred = x if self.mean is None else x - self.mean.to(x)
        return centred / broadcast_to_image(self.std.to(x), x)

    def outside(self, x: Tensor) -> Tensor:
        """The inverse of `inside`."""
        scaled = x * broadcast_to_image(self.std.to(x), x)
        return scaled if self.mean is None else scaled + self.mean.to(x)

    def noisy_inside(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """Noisy pictures at `logsnr`, (B,), as noisy x' at `level(logsnr)`."""
        alpha, sigma = alpha_sigma(logsnr.to(z))
        scale = (alpha.square() * self.std.to(z).square() + sigma.square()).rsqrt()
        centred = z
        if self.mean is not None:
            centred = z - broadcast_to_image(alpha, z) * self.mean.to(z)
        return centred * broadcast_to_image(scale, z)

    def noisy_outside(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """The inverse of `noisy_inside`."""
        alpha, sigma = alpha_sigma(logsnr.to(z))
        scale = (alpha.square() * self.std.to(z).square() + sigma.square()).sqrt()
        scaled = z * broadcast_to_image(scale, z)
        if self.mean is None:
            return scaled
        return scaled + broadcast_to_image(alpha, z) * self.mean.to(z)

    def level(self, logsnr: Tensor) -> Tensor:
        """Log-SNR of x' where that of x is `logsnr`."""
        return logsnr + 2 * self.std.to(logsnr).log()
