"""The draft: an image made of the caption by a plain regression, for a small base to begin from.

Where noise hides everything, the best estimate of an image is the mean image of its caption. A
U-Net learns where things go slowly; a regression from the pooled caption to the coefficients of a
fixed basis learns it some hundred times cheaper an image. The base is conditioned on the draft as
a super-resolution stage is on its low-resolution image, and sampling may start from it, noised.

The basis is of images with their transparency, and the regression says the colour of the ground
apart: what is shown and the ground behind it are learned once each, not in all their combinations.

Where pixels of the image are known, as in editing, the draft is the mean of the images that have
them. Images are taken to lie round their draft in a Gaussian, so that this is linear algebra: the
other half of a face follows from the first, and what is made meets what is kept.

An addition for small models; Imagen has none. Regression first and diffusion for what is left:
Mardani et al. 2023, arXiv:2309.15214 (CorrDiff).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.config.network import DraftConfig

_HEADS = 6
COLOUR = 3
"""Coefficients of the ground's colour, which follow those of the basis."""
_LEVELS = 127  # of 8 bits
_LEFT_OUT = 0.35  # of known pixels: how far they lie from what the basis can make, in [-1, 1]
_GROUND_TOLERANCE = 0.1  # a known pixel so near to the ground's colour is ground, likewise
_GROUND_CAUTION = 5.0  # pixels of ground count 1 / (1 + this): see `_weight`
_ITERATIONS = 12


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

    Basis and mean are set once, from the training images (`tasks/draft.py`), and are never
    optimized, nor is the spread of images round their drafts. The basis is kept in 8 bits, a scale
    for each row: its error is a hundredth of what a thousand components leave out. Whitened pooled
    text of 0, the null caption, has a draft as well.

    Args:
        config: width, rank and resolution, and whether it has a spread.
        text_dim: width D of the pooled text.
    """

    basis: Tensor
    scale: Tensor
    mean: Tensor
    spread: Tensor | None

    def __init__(self, config: DraftConfig, text_dim: int) -> None:
        super().__init__()
        self.config = config
        numbers = 4 * config.resolution**2
        self.regression = CoefficientRegression(config, text_dim)
        self.register_buffer("basis", torch.zeros(config.rank, numbers, dtype=torch.int8))
        self.register_buffer("scale", torch.zeros(config.rank))
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("spread", torch.zeros(config.rank) if config.spread else None)
        self._kept: tuple[Tensor, int, Tensor, int, Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies and files do without what can be made again."""
        return {**self.__dict__, "_kept": None}

    @torch.no_grad()
    def set_basis(self, components: Tensor, mean: Tensor) -> None:
        """Take over orthonormal components (rank, 4 * side²) and the mean (4 * side²)."""
        scale = components.abs().amax(1).clamp(min=1e-12) / _LEVELS
        self.scale.copy_(scale)
        self.basis.copy_((components / scale[:, None]).round())
        self.mean.copy_(mean)

    def components(self) -> Tensor:
        """The basis as numbers, (rank, 4 * side²); kept, for making them takes long."""
        basis, scale, kept = self.basis, self.scale, self._kept
        if kept is not None and kept[0] is basis and kept[2] is scale:
            if (kept[1], kept[3]) == (basis._version, scale._version):
                return kept[4]
        with torch.no_grad():
            numbers = basis.to(scale.dtype).mul_(scale[:, None])
        self._kept = (basis, basis._version, scale, scale._version, numbers)
        return numbers

    def forward(self, pooled: Tensor, known: Tensor | None = None) -> Tensor:
        """(B, D) -> images (B, 3, side, side) in about [-1, 1], not clipped; see `image`."""
        return self.image(self.regression(pooled), known)

    def image(self, coefficients: Tensor, known: Tensor | None = None) -> Tensor:
        """Images (B, 3, side, side) of coefficients (B, rank + 3).

        The sum of the basis is an image on white and its transparency. The last three say how far
        the ground is from white, in units of an image that is transparent everywhere: 1 of them is
        as long as 1 of a coefficient.

        Args:
            coefficients: of the captions.
            known: of the images that are wanted, (B, 4, H, W): see `Conditioning.extra`. The draft
                has these pixels, and if it has a spread, the others follow from them.
        """
        side, rank = self.config.resolution, self.config.rank
        components = self.components()
        layers = self.mean + coefficients[:, :rank] @ components
        layers = layers.reshape(-1, 4, side, side)
        on_white, transparency = layers[:, :3], layers[:, 3:].clamp(0, 1)
        ground = (coefficients[:, rank:] / side)[:, :, None, None]
        image = on_white + transparency * ground
        if known is None:
            return image
        known = F.adaptive_avg_pool2d(known.to(image), (side, side))
        known, mask = known[:, :3], (known[:, 3:] > 1 - 1e-4).to(image)  # all of a pixel is known
        if self.spread is not None:
            missed = (mask * transparency * (known - image)).sum((2, 3), keepdim=True)
            ground = ground + missed / (1 + (mask * transparency**2).sum((2, 3), keepdim=True))
            image = on_white + transparency * ground
            weight = mask * self._weight(known, 1 + ground)
            image = image + self._due_to(weight * (known - image), weight, components)
        return torch.lerp(image, known, mask)

    def _weight(self, known: Tensor, ground: Tensor) -> Tensor:
        """How much known pixels count, (B, 1, side, side): one over their variance.

        Holes often lie round a thing as close as they can, and ground about it does not mean that
        it is faint: so pixels of ground count less.
        """
        distance = (known - ground).square().mean(1, keepdim=True)
        is_ground = torch.exp(-distance / (2 * _GROUND_TOLERANCE**2))
        return 1 / (_LEFT_OUT**2 * (1 + _GROUND_CAUTION * is_ground))

    def _due_to(self, residual: Tensor, weight: Tensor, components: Tensor) -> Tensor:
        """What known pixels change of drafts, (B, 3, side, side).

        An image is its draft + u @ components + what is left out, in which u and the rest are
        normal. The mean of u, given the known pixels, solves the normal equations of a ridge
        regression; with a matrix of its own for each mask, conjugate gradients are far cheaper than
        to factor them (Hestenes & Stiefel 1952).

        Args:
            residual: of known pixels, weighed, (B, 3, side, side); 0 where nothing is known.
            weight: of known pixels, (B, 1, side, side); 0 where nothing is known.
            components: the basis.
        """
        assert self.spread is not None
        std = self.spread.sqrt()

        def image(u: Tensor) -> Tensor:
            side = self.config.resolution
            return ((u * std) @ components).reshape(-1, 4, side, side)[:, :3]

        def transposed(x: Tensor) -> Tensor:
            with_transparency = F.pad(x, (0, 0, 0, 0, 0, 1))  # which is never known
            return (with_transparency.flatten(1) @ components.T) * std

        left = transposed(residual)
        u, direction = torch.zeros_like(left), left
        length = left.square().sum(1, keepdim=True)
        tiny = torch.finfo(length.dtype).tiny
        for _ in range(_ITERATIONS):
            product = direction + transposed(image(direction) * weight)
            step = length / (direction * product).sum(1, keepdim=True).clamp(min=tiny)
            u, left = u + step * direction, left - step * product
            before, length = length, left.square().sum(1, keepdim=True)
            direction = left + length / before.clamp(min=tiny) * direction
        return image(u)
