"""Arithmetic on a table of noise levels in the order of guided-diffusion's and GLIDE's code.

The formulas are those of `EpsPrediction` and `ddim_step`; only the order of operations differs, and
with it the last digits of float32. Where little of the image is left an estimate multiplies them
by up to sigma / alpha, and a trajectory multiplies that: to repeat published numbers, round as
they were rounded. Coefficients are float64 until they meet an image.

Reference: Dhariwal & Nichol 2021, arXiv:2105.05233; their code, as recorded from GLIDE's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.diffusion.parametrization import EpsPrediction
from calotype.diffusion.schedule import broadcast_to_image, float64
from calotype.diffusion.steps import Move


@dataclass(frozen=True)
class TableEpsPrediction(EpsPrediction):
    """Predict the noise; the estimate is `sqrt(1/a)*z - sqrt(1/a - 1)*eps` with `a = alpha^2`."""

    def to_x(self, output: Tensor, z: Tensor, logsnr: Tensor) -> Tensor:
        """Return the estimate of the clean image; like `z`."""
        of_z, of_eps = _coefficients(logsnr)
        return broadcast_to_image(of_z, z) * z - broadcast_to_image(of_eps, z) * output


def table_ddim_step(move: Move) -> Tensor:
    """DDIM by way of the noise that the thresholded estimate implies; see `ddim_step`."""
    z, x_hat = move.state.z, move.state.estimate.x_hat
    of_z, of_eps = (value.to(z.dtype) for value in _coefficients(move.state.logsnr))
    eps = (of_z * z - x_hat) / of_eps
    alpha2_next = torch.sigmoid(move.logsnr_next).to(z.dtype)
    return x_hat * alpha2_next.sqrt() + (1 - alpha2_next).sqrt() * eps


def _coefficients(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    alpha2 = torch.sigmoid(float64(logsnr))
    return (1 / alpha2).sqrt(), (1 / alpha2 - 1).sqrt()
