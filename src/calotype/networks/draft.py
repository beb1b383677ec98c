"""The draft: an image made of the caption by a plain regression, for a small base to begin from.

Where noise hides everything, the best estimate of an image is the mean image of its caption. A
U-Net learns where things go slowly; a regression from the pooled caption to the coefficients of a
fixed basis learns it some hundred times cheaper an image. The base is conditioned on the draft as
a super-resolution stage is on its low-resolution image, and sampling may start from it, noised.

An addition for small models; Imagen has none. Regression first and diffusion for what is left:
Mardani et al. 2023, arXiv:2309.15214 (CorrDiff).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from calotype.config import DraftConfig


class Draft(nn.Module):
    """Pooled text -> image: `mean + mlp(pooled) @ basis`.

    Basis and mean are set once, from the training images (`training/draft.py`), and are never
    optimized. Whitened pooled text of 0, the null caption, has a draft as well.

    Args:
        config: width, rank and resolution.
        text_dim: width D of the pooled text.
    """

    def __init__(self, config: DraftConfig, text_dim: int) -> None:
        super().__init__()
        self.config = config
        width, numbers = config.width, 3 * config.resolution**2
        self.mlp = nn.Sequential(
            nn.Linear(text_dim, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, config.rank),
        )
        # Parameters, so that files hold them as they hold weights: in half precision.
        self.basis = nn.Parameter(torch.zeros(config.rank, numbers), requires_grad=False)
        self.mean = nn.Parameter(torch.zeros(numbers), requires_grad=False)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, D) -> images (B, 3, side, side) in about [-1, 1], not clipped; never autocast."""
        with torch.autocast(pooled.device.type, enabled=False):
            return self.image(self.mlp(pooled.to(self.mean.dtype)))

    def image(self, coefficients: Tensor) -> Tensor:
        """The sum of the basis with coefficients (B, rank), (B, 3, side, side)."""
        side = self.config.resolution
        return (self.mean + coefficients @ self.basis).reshape(-1, 3, side, side)
