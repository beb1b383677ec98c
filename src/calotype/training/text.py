"""Captions on their way to the network: embedded once ahead, looked up at each step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from calotype.conditioning import TextEmbedding
from calotype.errors import ConfigError
from calotype.text import TextEncoder, build_text_encoder
from calotype.text.store import CaptionStore, embed_captions

TextLookup = Callable[[Sequence[str]], TextEmbedding]
_CHUNK = 1024


@dataclass(frozen=True)
class TextStatistics:
    """Of the mean token states of captions: mean (D,) and covariance (D, D), float64."""

    mean: Tensor
    covariance: Tensor


def build_encoder(spec: str, text_dim: int) -> TextEncoder | None:
    """The encoder of a recipe; None for networks without text.

    Raises:
        ConfigError: encoder and network do not fit.
    """
    if text_dim == 0:
        return None
    encoder = build_text_encoder(spec)
    if encoder is None or encoder.embed_dim != text_dim:
        width = "no" if encoder is None else encoder.embed_dim
        raise ConfigError(
            f"got text_dim={text_dim} with text_encoder={spec!r} of {width} channels; "
            "expected both alike: change the recipe"
        )
    return encoder


def embed_ahead(
    encoder: TextEncoder,
    captions: Iterable[str],
    *,
    folder: Path,
    missing: Literal["compute", "refuse"] = "compute",
    progress: Callable[[int, int], None] | None = None,
) -> CaptionStore:
    """Embed all captions into the store in `folder`, or open what is there.

    Args:
        encoder: of the recipe.
        captions: every caption that training may meet.
        folder: of the store.
        missing: "refuse" embeds nothing: a caption that is not stored is an error when met.
        progress: gets (done, total).
    """
    captions = [] if missing == "refuse" else captions
    store = embed_captions(encoder, captions, folder=folder, progress=progress)
    if missing == "compute":
        store.encoder = encoder
    return store


def caption_statistics(lookup: TextLookup, captions: Iterable[str]) -> TextStatistics | None:
    """Mean and covariance of the captions' mean token states, for whitened pooling.

    Empty captions do not count; None when there are fewer than two others.
    """
    distinct = [caption for caption in dict.fromkeys(captions) if caption.strip()]
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for start in range(0, len(distinct), _CHUNK):
        pooled = _mean_states(lookup(distinct[start : start + _CHUNK]))
        count += len(pooled)
        total = total + pooled.sum(0)
        squares = squares + pooled.T @ pooled
    if count < 2:
        return None
    mean = total / count
    return TextStatistics(mean, squares / count - torch.outer(mean, mean))


def _mean_states(text: TextEmbedding) -> Tensor:
    weights = text.mask.double()[..., None]
    pooled = (text.tokens.double() * weights).sum(1) / weights.sum(1).clamp_min(1.0)
    return pooled[text.mask.any(1)]
