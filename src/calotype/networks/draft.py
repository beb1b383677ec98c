"""The draft: an image made of the caption by a plain regression, for a small base to begin from.

Where noise hides everything, the best estimate of an image is the mean image of its caption. A
U-Net learns where things go slowly; a regression from the pooled caption to the coefficients of a
fixed basis learns it some hundred times cheaper an image. The base is conditioned on the draft as
a super-resolution stage is on its low-resolution image, and sampling may start from it, noised.

The basis is of images with their transparency, and the regression says the colour of the ground
apart: what is shown and the ground behind it are learned once each, not in all their combinations.

An addition for small models; Imagen has none. Regression first and diffusion for what is left:
Mardani et al. 2023, arXiv:2309.15214 (CorrDiff).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.config.network import DraftConfig

_HEADS = 6
COLOUR = 3
"""Coefficients of the ground's colour, which follow those of the basis."""
_LEVELS = 127  # of 8 bits


class CoefficientRegression(nn.Module):
    """Pooled text -> coefficients, by a gated hidden layer and a mixture of linear heads.

    Captions say what is shown and in which style. The heads share the features of things, and the
    caption mixes the heads: so what was learned of a thing in one style serves the others. A plain
    MLP of the same cost has a third more error on captions it never saw in a style it shares with
    others (docs/numerics.md).

    Reference: Shazeer 2020, arXiv:2002.05202 (gated layers); Jacobs et al. 1991 (mixtures).

    Args:
        config: the hidden layer has `width` units, half as many features follow; `rank`
            coefficients and the 3 of the ground's colour come out.
        text_dim: width D of the pooled text.
    """

    def __init__(self, config: DraftConfig, text_dim: int) -> None:
        super().__init__()
        width, features = config.width, max(1, config.width // 2)
        self.gate = nn.Linear(text_dim, width)
        self.hidden = nn.Linear(text_dim, width)
        self.features = nn.Linear(width, features)
        self.mixture = nn.Linear(text_dim, _HEADS)
        self.heads = nn.Linear(features, _HEADS * (config.rank + COLOUR))

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, D) -> (B, rank + 3)."""
        hidden = F.silu(self.gate(pooled)) * self.hidden(pooled)  # (B, W)
        heads = self.heads(F.silu(self.features(hidden))).unflatten(1, (_HEADS, -1))
        mixture = self.mixture(pooled).softmax(1).to(heads.dtype)  # (B, K)
        return torch.einsum("bk,bkr->br", mixture, heads)


class Draft(nn.Module):
    """Pooled text -> image on a ground: `mean + coefficients @ basis`, and a colour behind it.

    Basis and mean are set once, from the training images (`training/draft.py`), and are never
    optimized. The basis is kept in 8 bits, a scale for each row: its error is a hundredth of what a
    thousand components leave out. Whitened pooled text of 0, the null caption, has a draft as well.

    Args:
        config: width, rank and resolution.
        text_dim: width D of the pooled text.
    """

    basis: Tensor
    scale: Tensor
    mean: Tensor

    def __init__(self, config: DraftConfig, text_dim: int) -> None:
        super().__init__()
        self.config = config
        numbers = 4 * config.resolution**2
        self.regression = CoefficientRegression(config, text_dim)
        self.register_buffer("basis", torch.zeros(config.rank, numbers, dtype=torch.int8))
        self.register_buffer("scale", torch.zeros(config.rank))
        self.register_buffer("mean", torch.zeros(numbers))

    @torch.no_grad()
    def set_basis(self, components: Tensor, mean: Tensor) -> None:
        """Take over orthonormal components (rank, 4 * side²) and the mean (4 * side²)."""
        scale = components.abs().amax(1).clamp(min=1e-12) / _LEVELS
        self.scale.copy_(scale)
        self.basis.copy_((components / scale[:, None]).round())
        self.mean.copy_(mean)

    def components(self) -> Tensor:
        """The basis as numbers, (rank, 4 * side²)."""
        return self.basis * self.scale[:, None]

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, D) -> images (B, 3, side, side) in about [-1, 1], not clipped."""
        return self.image(self.regression(pooled))

    def image(self, coefficients: Tensor) -> Tensor:
        """Images (B, 3, side, side) of coefficients (B, rank + 3).

        The sum of the basis is an image on white and its transparency. The last three say how far
        the ground is from white, in units of an image that is transparent everywhere: 1 of them is
        as long as 1 of a coefficient.
        """
        side, rank = self.config.resolution, self.config.rank
        layers = self.mean + coefficients[:, :rank] @ self.components()
        layers = layers.reshape(-1, 4, side, side)
        ground = (coefficients[:, rank:] / side)[:, :, None, None]
        return layers[:, :3] + layers[:, 3:].clamp(0, 1) * ground
