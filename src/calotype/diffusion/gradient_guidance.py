"""Guidance by a gradient: a classifier of noisy images, or a CLIP of them, pulls estimates.

Reference: Dhariwal & Nichol 2021, algorithms 1 and 2, arXiv:2105.05233; with CLIP: Nichol et al.
2021, section 2.3, arXiv:2112.10741.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from calotype.diffusion.parametrization import Denoiser, Estimate
from calotype.diffusion.schedule import alpha_sigma, broadcast_to_image
from calotype.errors import UsageError

LogLikelihood = Callable[[Tensor, Tensor], Tensor]
"""`(z, logsnr) -> (B,)`: how likely noisy images (B, 3, H, W) at levels (B,) are what is
wanted, as a logarithm up to a constant; differentiable in `z`."""

GuidanceForm = Literal["score", "mean"]
"""What is moved: the score, which every sampler follows, or the mean of ancestral steps."""


@dataclass(frozen=True)
class GradientGuidance:
    """Moves what a denoiser says by `scale` times the gradient of a log-likelihood, taken at `z`.

    As score (algorithm 2): `eps - sigma*scale*grad`, that is `x_hat + scale*sigma^2/alpha*grad`.
    The result may leave [-1, 1], even of a thresholded denoiser: whoever wants it within thresholds
    it again, as a cascade's stages do. As mean (algorithm 1) the estimate stays, and an ancestral
    step moves its mean by `variance*scale*grad`.

    Args:
        log_likelihood: of noisy images; if it holds tensors of a batch it should have a method
            `rows(slice)`, so that the batch can be sampled in parts.
        scale: strength, at least 0; 0 = off.
        form: what is moved.
        known: True = a pixel that is known and not pulled, (B, 1, H, W) bool; None = no pixel is.
    """

    log_likelihood: LogLikelihood
    scale: float
    form: GuidanceForm = "score"
    known: Tensor | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.scale < float("inf"):
            raise UsageError(f"scale is {self.scale}, expected a number of at least 0: 3 is usual")

    def gradient(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """`scale` times the gradient of the log-likelihood at `z`, like `z`; 0 where known."""
        with torch.enable_grad():
            variable = z.detach().requires_grad_(True)
            total = self.log_likelihood(variable, logsnr).sum()
            gradient = self.scale * torch.autograd.grad(total, variable)[0]
        return gradient if self.known is None else gradient * ~self.known.to(z.device)

    def __call__(self, denoise: Denoiser) -> Denoiser:
        """The guided denoiser."""
        if self.scale == 0:
            return denoise

        def guided(z: Tensor, logsnr: Tensor) -> Estimate:
            estimate, gradient = denoise(z, logsnr), self.gradient(z, logsnr)
            if self.form == "mean":
                others = estimate.gradient
                return replace(estimate, gradient=gradient if others is None else gradient + others)
            alpha, sigma = alpha_sigma(logsnr)
            shift = broadcast_to_image(sigma.square() / alpha, z) * gradient
            return replace(estimate, x_hat=estimate.x_hat + shift)

        return guided

    def rows(self, rows: slice) -> GradientGuidance:
        """The same for some images of the batch."""
        of_rows = getattr(self.log_likelihood, "rows", None)
        likelihood = self.log_likelihood if of_rows is None else of_rows(rows)
        known = None if self.known is None else self.known[rows]
        return replace(self, log_likelihood=likelihood, known=known)
