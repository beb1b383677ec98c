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
from torch.nn import functional as F

from calotype.config import DraftConfig

_HEADS = 6


class CoefficientRegression(nn.Module):
    """Pooled text -> coefficients, by a gated hidden layer and a mixture of linear heads.

    Captions say what is shown and in which style. The heads share the features of things, and the
    caption mixes the heads: so what was learned of a thing in one style serves the others. A plain
    MLP of the same cost has a third more error on captions it never saw in a style it shares with
    others (docs/numerics.md).

    Reference: Shazeer 2020, arXiv:2002.05202 (gated layers); Jacobs et al. 1991 (mixtures).

    Args:
        text_dim: width D of the pooled text.
        width: of the hidden layer; there are half as many features.
        rank: coefficients R.
    """

    def __init__(self, text_dim: int, width: int, rank: int) -> None:
        super().__init__()
        features = max(1, width // 2)
        self.gate = nn.Linear(text_dim, width)
        self.hidden = nn.Linear(text_dim, width)
        self.features = nn.Linear(width, features)
        self.mixture = nn.Linear(text_dim, _HEADS)
        self.heads = nn.Linear(features, _HEADS * rank)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, D) -> (B, R)."""
        hidden = F.silu(self.gate(pooled)) * self.hidden(pooled)  # (B, W)
        heads = self.heads(F.silu(self.features(hidden))).unflatten(1, (_HEADS, -1))  # (B, K, R)
        mixture = self.mixture(pooled).softmax(1).to(heads.dtype)  # (B, K)
        return torch.einsum("bk,bkr->br", mixture, heads)


class Draft(nn.Module):
    """Pooled text -> image: `mean + regression(pooled) @ basis`.

    Basis and mean are set once, from the training images (`training/draft.py`), and are never
    optimized. Whitened pooled text of 0, the null caption, has a draft as well.

    Args:
        config: width, rank and resolution.
        text_dim: width D of the pooled text.
    """

    def __init__(self, config: DraftConfig, text_dim: int) -> None:
        super().__init__()
        self.config = config
        numbers = 3 * config.resolution**2
        self.regression = CoefficientRegression(text_dim, config.width, config.rank)
        # Parameters, so that files hold them as they hold weights: in half precision.
        self.basis = nn.Parameter(torch.zeros(config.rank, numbers), requires_grad=False)
        self.mean = nn.Parameter(torch.zeros(numbers), requires_grad=False)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, D) -> images (B, 3, side, side) in about [-1, 1], not clipped."""
        return self.image(self.regression(pooled))

    def image(self, coefficients: Tensor) -> Tensor:
        """The sum of the basis with coefficients (B, rank), (B, 3, side, side)."""
        side = self.config.resolution
        return (self.mean + coefficients @ self.basis).reshape(-1, 3, side, side)
