"""What conditions the U-Net, as records, and guidance by it as imagen-pytorch 2.1 has it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from calotype.diffusion import broadcast_to_image


@dataclass(frozen=True)
class TextState:
    """What the network makes of captions once per image.

    Args:
        tokens: attended to, (B, M, D).
        hidden: added to the time embedding, (B, E).
    """

    tokens: Tensor
    hidden: Tensor


@dataclass(frozen=True)
class UnetInputs:
    """All conditioning of the network beside the noise level.

    Args:
        text: encoded captions.
        lowres: the low-resolution image, enlarged and noised, (B, C, H, W).
        lowres_logsnr: how much it was noised, (B,).
        cond_images: further images, (B, C', h, w).
    """

    text: TextState | None = None
    lowres: Tensor | None = None
    lowres_logsnr: Tensor | None = None
    cond_images: Tensor | None = None

    def doubled(self, null: TextState) -> UnetInputs:
        """The same images twice, with their text and with the null caption."""

        def twice(x: Tensor | None) -> Tensor | None:
            return None if x is None else torch.cat((x, x))

        text = None
        if self.text is not None:
            tokens = torch.cat((self.text.tokens, null.tokens))
            text = TextState(tokens, torch.cat((self.text.hidden, null.hidden)))
        return UnetInputs(
            text, twice(self.lowres), twice(self.lowres_logsnr), twice(self.cond_images)
        )


@dataclass(frozen=True)
class Guidance:
    """`output + (weight - 1) * update`, where `update` is output minus null output.

    Of the network's output and not of the clean estimate: the projection depends on the space.

    Args:
        weight: 1 = off.
        project: take out of `update` the part parallel to `output`.
        keep_parallel: fraction of that part that stays, in [0, 1].

    Reference: Sadat et al. 2024 (there for the clean estimate), arXiv:2410.02416.
    """

    weight: float = 1.0
    project: bool = True
    keep_parallel: float = 0.0

    def __call__(self, output: Tensor, null: Tensor) -> Tensor:
        """Join the outputs with and without text, (B, C, H, W) each."""
        update = output - null
        if self.project:
            flat, along = update.double().flatten(1), output.double().flatten(1)
            length = (flat * F.normalize(along, dim=1)).sum(1) / along.norm(dim=1).clamp_min(1e-12)
            parallel = broadcast_to_image(length, output) * output
            update = update - (1 - self.keep_parallel) * parallel
        return output + (self.weight - 1) * update
