"""What the U-Net is told beside the noisy images, as records."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextState:
    """What the network makes of captions once per image.

    Args:
        tokens: attended to, (B, M, D).
        hidden: added to the time embedding, (B, E).
    """

    tokens: Tensor
    hidden: Tensor

    @staticmethod
    def cat(a: TextState, b: TextState) -> TextState:
        """Join two batches."""
        return TextState(torch.cat((a.tokens, b.tokens)), torch.cat((a.hidden, b.hidden)))


@dataclass(frozen=True)
class UnetInputs:
    """All the network is told beside the noisy images and their level.

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

    def doubled(self, other_text: TextState) -> UnetInputs:
        """The same images twice, with this text and with another."""

        def twice(x: Tensor | None) -> Tensor | None:
            return None if x is None else torch.cat((x, x))

        text = None if self.text is None else TextState.cat(self.text, other_text)
        return UnetInputs(
            text, twice(self.lowres), twice(self.lowres_logsnr), twice(self.cond_images)
        )
