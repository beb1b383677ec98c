"""What a network is conditioned on beside the noisy image: text, class, low-resolution image.

These records stand between the text encoders, the data and the networks; they hold tensors and
know nothing of where these came from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypeVar, cast

import torch
from torch import Tensor

C = TypeVar("C", bound="_Captions")

NULL_CLASS = -1
"""The number of the null class in `Conditioning.classes`: nobody says what the image shows."""


class _Captions:
    """What both kinds of captions can do: rows of tensors, (B, L, ...), and a mask beside them."""

    mask: Tensor

    def __len__(self) -> int:
        return self.mask.shape[0]

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(*(change(getattr(self, field.name)) for field in fields(cast(Any, self))))

    def to(self, device: torch.device | str) -> Self:
        """The same captions on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def __getitem__(self, rows: slice | Tensor) -> Self:
        return self._map(lambda tensor: tensor[rows])

    def drop(self, keep: Tensor) -> Self:
        """Turn the captions where `keep`, (B,) bool, is False into the null caption."""
        mask = self.mask & keep.to(self.mask.device)[:, None]
        return self._map(lambda tensor: tensor * mask.view(*mask.shape, *(1,) * (tensor.ndim - 2)))

    def padded(self, length: int) -> Self:
        """Padded with ignored tokens to at least `length` tokens."""
        extra = length - self.mask.shape[1]
        if extra <= 0:
            return self
        pad = torch.nn.functional.pad
        return self._map(lambda tensor: pad(tensor, (*(0, 0) * (tensor.ndim - 2), 0, extra)))

    @staticmethod
    def cat(a: C, b: C) -> C:
        """Join two batches, padding the shorter captions."""
        length = max(a.mask.shape[1], b.mask.shape[1])
        a, b = a.padded(length), b.padded(length)
        names = [field.name for field in fields(cast(Any, a))]
        return type(a)(*(torch.cat((getattr(a, name), getattr(b, name))) for name in names))


@dataclass(frozen=True)
class TextEmbedding(_Captions):
    """Token states of a frozen text encoder.

    Args:
        tokens: encoder states, (B, L, D), finite; what rows of padding hold is ignored.
        mask: True = real token, (B, L) bool. A caption without real tokens is the null caption.
    """

    tokens: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3 or self.mask.shape != self.tokens.shape[:2]:
            raise ValueError(
                f"got tokens {tuple(self.tokens.shape)} and mask {tuple(self.mask.shape)}; "
                "expected (B, L, D) and (B, L)"
            )

    @staticmethod
    def null(batch_size: int, embed_dim: int) -> TextEmbedding:
        """The null caption, `batch_size` times: one token that is not there."""
        tokens = torch.zeros(batch_size, 1, embed_dim)
        return TextEmbedding(tokens, torch.zeros(batch_size, 1, dtype=torch.bool))


@dataclass(frozen=True)
class TokenIds(_Captions):
    """Captions as a tokenizer's numbers, for networks with a text tower of their own.

    Args:
        ids: (B, L) int64; what places of padding hold is ignored.
        mask: True = real token, (B, L) bool. A caption without real tokens is the null caption.
    """

    ids: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.mask.shape != self.ids.shape or self.ids.dtype != torch.int64:
            raise ValueError(
                f"got ids {tuple(self.ids.shape)} {self.ids.dtype} and mask "
                f"{tuple(self.mask.shape)}; expected (B, L) int64 and (B, L)"
            )

    @staticmethod
    def null(batch_size: int) -> TokenIds:
        """The null caption, `batch_size` times: one token that is not there."""
        ids = torch.zeros(batch_size, 1, dtype=torch.int64)
        return TokenIds(ids, torch.zeros(batch_size, 1, dtype=torch.bool))


Text = TextEmbedding | TokenIds
"""Captions as networks take them: states of a frozen encoder, or numbers for their own."""


def token_states(text: Text | None) -> TextEmbedding:
    """The captions, for a network that takes states.

    Raises:
        ValueError: there are none, or they are ids.
    """
    if not isinstance(text, TextEmbedding):
        raise ValueError(
            f"got {'no text' if text is None else 'token ids'} for a network that takes states; "
            "expected a TextEmbedding (TextEmbedding.null for the null caption)"
        )
    return text


def token_ids(text: Text | None) -> TokenIds:
    """The captions, for a network that takes ids.

    Raises:
        ValueError: there are none, or they are states.
    """
    if not isinstance(text, TokenIds):
        raise ValueError(
            f"got {'no text' if text is None else 'token states'} for a network with a text tower "
            "of its own; expected TokenIds (TokenIds.null for the null caption)"
        )
    return text


@dataclass(frozen=True)
class Conditioning:
    """Everything one forward pass is conditioned on.

    Args:
        text: captions, or None for a network without text.
        lowres: low-resolution images, enlarged to the stage's resolution and noised,
            (B, 3, H, W) in about [-1, 1]; None for a base stage.
        aug_level: how much `lowres` was noised, (B,) in [0, 1]; None for a base stage.
        extra: further channels of the input that some networks take, (B, C, H, W): for
            inpainting, the known image times its mask, then the mask (1 = known).
        draft: image that a regression made of the caption, (B, 3, h, w) in about [-1, 1], for
            networks that are conditioned on one; None = these make it themselves.
        classes: what each image shows, (B,) int64: numbers from 0, -1 = the null class; None =
            nobody said, which networks with classes take for the null class of every image.
    """

    text: Text | None = None
    lowres: Tensor | None = None
    aug_level: Tensor | None = None
    extra: Tensor | None = None
    draft: Tensor | None = None
    classes: Tensor | None = None

    def __post_init__(self) -> None:
        classes = self.classes
        if classes is not None and (classes.ndim != 1 or classes.dtype != torch.int64):
            raise ValueError(
                f"got classes {tuple(classes.shape)} {classes.dtype}; expected (B,) int64"
            )

    def drop_text(self, keep: Tensor) -> Conditioning:
        """Null the captions where `keep`, (B,) bool, is False; a draft is to be made anew."""
        if self.text is None:
            return self
        return replace(self, text=self.text.drop(keep), draft=None)

    def drop_classes(self, keep: Tensor) -> Conditioning:
        """The null class where `keep`, (B,) bool, is False."""
        if self.classes is None:
            return self
        kept = keep.to(self.classes.device)
        return replace(self, classes=torch.where(kept, self.classes, NULL_CLASS))

    def null(self) -> Conditioning:
        """The same images with the null caption and class: the other half of guidance."""
        cond = self
        if cond.text is not None:
            cond = cond.drop_text(torch.zeros(len(cond.text), dtype=torch.bool))
        if cond.classes is not None:
            cond = cond.drop_classes(torch.zeros(len(cond.classes), dtype=torch.bool))
        return cond

    def crop(self, rows: slice, columns: slice) -> Conditioning:
        """What conditions a part of the images; a draft, which shows the whole, stays as it is."""
        parts = (None if x is None else x[..., rows, columns] for x in (self.lowres, self.extra))
        lowres, extra = parts
        return replace(self, lowres=lowres, extra=extra)

    @staticmethod
    def cat(a: Conditioning, b: Conditioning) -> Conditioning:
        """Join two batches, e.g. with and without text for one guided forward pass.

        Raises:
            ValueError: one of them has what the other lacks.
        """
        joined: dict[str, Any] = {}
        for name in (field.name for field in fields(Conditioning)):
            one, other = getattr(a, name), getattr(b, name)
            if (one is None) != (other is None):
                raise ValueError(f"got {name} in one of two batches; expected it in both or none")
            if one is not None:
                joined[name] = one.cat(one, other) if name == "text" else torch.cat((one, other))
        return Conditioning(**joined)
