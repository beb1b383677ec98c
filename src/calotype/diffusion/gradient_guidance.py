"""Guidance by a gradient: a classifier of noisy images, such as a noised CLIP, pulls estimates.

Reference: Dhariwal & Nichol 2021, section 4.2 (score conditioning), arXiv:2105.05233; with CLIP:
Nichol et al. 2021, section 2.3, arXiv:2112.10741.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calotype.diffusion.parametrization import Denoiser, Estimate
from calotype.diffusion.schedule import alpha_sigma, broadcast_to_image
from calotype.errors import UsageError

LogLikelihood = Callable[[Tensor, Tensor], Tensor]
"""`(z, logsnr) -> (B,)`: how likely noisy images (B, 3, H, W) at levels (B,) are what is
wanted, as a logarithm up to a constant; differentiable in `z`."""


@dataclass(frozen=True)
class GradientGuidance:
    """Moves the score of a denoiser by `scale` times the gradient of a log-likelihood in z.

    In terms of the estimate: `eps - sigma*scale*grad`, that is `x_hat + scale*sigma^2/alpha*grad`.
    Estimates may leave [-1, 1]; as an edit of a stage it comes after thresholding, as in GLIDE.

    Args:
        log_likelihood: of noisy images; if it holds tensors of a batch it should have a method
            `rows(slice)`, so that the batch can be sampled in parts.
        scale: strength, at least 0; 0 = off.
    """

    log_likelihood: LogLikelihood
    scale: float

    def __post_init__(self) -> None:
        if not 0 <= self.scale < float("inf"):
            raise UsageError(f"scale is {self.scale}, expected a number of at least 0: 3 is usual")

    def gradient(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """`scale` times the gradient of the log-likelihood at `z`, like `z`."""
        with torch.enable_grad():
            variable = z.detach().requires_grad_(True)
            total = self.log_likelihood(variable, logsnr).sum()
            return self.scale * torch.autograd.grad(total, variable)[0]

    def __call__(self, denoise: Denoiser) -> Denoiser:
        """The guided denoiser."""
        if self.scale == 0:
            return denoise

        def guided(z: Tensor, logsnr: Tensor) -> Estimate:
            estimate = denoise(z, logsnr)
            alpha, sigma = alpha_sigma(logsnr)
            shift = broadcast_to_image(sigma.square() / alpha, z) * self.gradient(z, logsnr)
            return replace(estimate, x_hat=estimate.x_hat + shift)

        return guided

    def rows(self, rows: slice) -> GradientGuidance:
        """The same for some images of the batch."""
        of_rows = getattr(self.log_likelihood, "rows", None)
        return self if of_rows is None else replace(self, log_likelihood=of_rows(rows))
