"""Timesteps that are taken the oftener the larger their losses were, without a bias.

The terms of the variational bound differ by orders of magnitude: at uniform timesteps its gradient
is mostly noise. Reference: Nichol & Dhariwal 2021, section 3.3, arXiv:2102.09672.
"""

from __future__ import annotations

import torch
from torch import Tensor

_LAST = 10  # losses of each timestep that count, as in the paper
_UNIFORM = 0.001  # of the timesteps are uniform whatever the losses, as in the published code


class LossHistory:
    """The last losses of each timestep.

    `losses` is (T, 10) float64 on the CPU, the newest last; NaN where there was none yet.
    """

    def __init__(self, steps: int) -> None:
        self.losses = torch.full((steps, _LAST), torch.nan, dtype=torch.float64, device="cpu")

    def probabilities(self) -> Tensor:
        """How often each timestep is to be taken, (T,): uniform until all have 10 losses."""
        roots = self.losses.square().mean(1).sqrt()
        total, steps = float(roots.sum()), len(roots)
        if not 0 < total < float("inf"):
            return torch.full_like(roots, 1 / steps)
        return (1 - _UNIFORM) * roots / total + _UNIFORM / steps

    def add(self, timesteps: Tensor, losses: Tensor) -> None:
        """Take in the losses (B,) of some rows at `timesteps` (B,), in the order of the rows."""
        for timestep, loss in zip(timesteps.tolist(), losses.tolist(), strict=True):
            row = self.losses[timestep]
            row.copy_(row.roll(-1))
            row[-1] = loss


def pick_timesteps(uniform: Tensor, probabilities: Tensor) -> Tensor:
    """Turn uniform numbers (B,) in [0, 1) into timesteps, (B,) int64, by their probabilities."""
    bounds = probabilities.cumsum(0)
    return torch.searchsorted(bounds / bounds[-1], uniform.to(bounds), right=True).clamp_max(
        len(bounds) - 1
    )
