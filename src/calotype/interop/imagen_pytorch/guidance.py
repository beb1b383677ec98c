"""Guidance as imagen-pytorch 2.1 has it: on the network's output, along one direction or not.

Written on the output and not on the clean estimate because the projection depends on the space.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from calotype.diffusion import broadcast_to_image


@dataclass(frozen=True)
class Guidance:
    """`output + (weight - 1) * update`, where `update` is output minus null output.

    Args:
        weight: 1 = off.
        project: take out of `update` the part parallel to `output`.
        keep_parallel: share of that part that stays, in [0, 1].

    Reference: Sadat et al. 2024 (there for the clean estimate), arXiv:2410.02416.
    """

    weight: float = 1.0
    project: bool = True
    keep_parallel: float = 0.0

    @property
    def off(self) -> bool:
        """Whether the null output is not needed."""
        return self.weight == 1

    def __call__(self, output: Tensor, null: Tensor) -> Tensor:
        """Join the outputs with and without text, (B, C, H, W) each."""
        update = output - null
        if self.project:
            flat, along = update.double().flatten(1), output.double().flatten(1)
            share = (flat * F.normalize(along, dim=1)).sum(1) / along.norm(dim=1).clamp_min(1e-12)
            parallel = broadcast_to_image(share, output) * output
            update = update - (1 - self.keep_parallel) * parallel
        return output + (self.weight - 1) * update
