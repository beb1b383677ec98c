"""What a network is told beside the noisy image: text, low-resolution image, its noise.

These records stand between the text encoders, the data and the networks; they hold tensors and
know nothing of where these came from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class TextEmbedding:
    """Token states of a frozen text encoder.

    Args:
        tokens: encoder states, (B, L, D), finite; what rows of padding hold is ignored.
        mask: True = real token, (B, L) bool. A caption without real tokens is the null caption.
    """

    tokens: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        """Check that both tensors speak of the same tokens."""
        if self.tokens.ndim != 3 or self.mask.shape != self.tokens.shape[:2]:
            raise ValueError(
                f"got tokens {tuple(self.tokens.shape)} and mask {tuple(self.mask.shape)}; "
                "expected (B, L, D) and (B, L)"
            )

    def __len__(self) -> int:
        """Number of captions, B."""
        return self.tokens.shape[0]

    def to(self, device: torch.device | str) -> TextEmbedding:
        """The same embedding on another device."""
        return TextEmbedding(self.tokens.to(device), self.mask.to(device))

    def __getitem__(self, rows: slice | Tensor) -> TextEmbedding:
        """A part of the batch, by a slice or by row numbers."""
        return TextEmbedding(self.tokens[rows], self.mask[rows])

    def drop(self, keep: Tensor) -> TextEmbedding:
        """Turn the captions where `keep`, (B,) bool, is False into the null caption."""
        keep = keep.to(self.mask.device)
        mask = self.mask & keep[:, None]
        return TextEmbedding(self.tokens * mask[..., None], mask)

    @staticmethod
    def cat(a: TextEmbedding, b: TextEmbedding) -> TextEmbedding:
        """Join two batches, padding the shorter captions."""
        length = max(a.tokens.shape[1], b.tokens.shape[1])
        a, b = a.padded(length), b.padded(length)
        return TextEmbedding(torch.cat((a.tokens, b.tokens)), torch.cat((a.mask, b.mask)))

    def padded(self, length: int) -> TextEmbedding:
        """Padded with ignored tokens to at least `length` tokens."""
        extra = length - self.tokens.shape[1]
        if extra <= 0:
            return self
        pad = torch.nn.functional.pad
        return TextEmbedding(pad(self.tokens, (0, 0, 0, extra)), pad(self.mask, (0, extra)))

    @staticmethod
    def null(batch_size: int, embed_dim: int) -> TextEmbedding:
        """The null caption, `batch_size` times: one token that is not there."""
        tokens = torch.zeros(batch_size, 1, embed_dim)
        return TextEmbedding(tokens, torch.zeros(batch_size, 1, dtype=torch.bool))


@dataclass(frozen=True)
class Conditioning:
    """Everything one forward pass is told.

    Args:
        text: caption embeddings, or None for a network without text.
        lowres: low-resolution images, enlarged to the stage's resolution and noised,
            (B, 3, H, W) in about [-1, 1]; None for a base stage.
        aug_level: how much `lowres` was noised, (B,) in [0, 1]; None for a base stage.
        extra: further channels of the input that some networks take, (B, C, H, W): for
            inpainting, the known image times its mask, then the mask (1 = known).
        draft: image that a regression made of the caption, (B, 3, h, w) in about [-1, 1], for
            networks that are conditioned on one; None = these make it themselves.
    """

    text: TextEmbedding | None = None
    lowres: Tensor | None = None
    aug_level: Tensor | None = None
    extra: Tensor | None = None
    draft: Tensor | None = None

    def drop_text(self, keep: Tensor) -> Conditioning:
        """Null the captions where `keep`, (B,) bool, is False; a draft is to be made anew."""
        if self.text is None:
            return self
        return replace(self, text=self.text.drop(keep), draft=None)

    def without_text(self) -> Conditioning:
        """The same images with the null caption: the other half of guidance."""
        if self.text is None:
            return self
        return self.drop_text(torch.zeros(len(self.text), dtype=torch.bool))

    @staticmethod
    def cat(a: Conditioning, b: Conditioning) -> Conditioning:
        """Join two batches, e.g. with and without text for one guided forward pass.

        Raises:
            ValueError: one of them has what the other lacks.
        """
        for name in ("text", "lowres", "aug_level", "extra", "draft"):
            if (getattr(a, name) is None) != (getattr(b, name) is None):
                raise ValueError(f"got {name} in one of two batches; expected it in both or none")
        text = None
        if a.text is not None and b.text is not None:
            text = TextEmbedding.cat(a.text, b.text)
        return Conditioning(
            text,
            _cat(a.lowres, b.lowres),
            _cat(a.aug_level, b.aug_level),
            _cat(a.extra, b.extra),
            _cat(a.draft, b.draft),
        )


def _cat(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else torch.cat((a, b))
