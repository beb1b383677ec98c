"""The vision room: images come in, embeddings go out.

`ImageEncoder` is what every encoder of images offers; CLIP, which embeds captions in the same
space and so scores how well both fit, is the first. May import what stands above it: networks,
text, storage, config.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class ImageEncoder(Protocol):
    """A frozen map from images to vectors."""

    @property
    def embed_dim(self) -> int:
        """Width E of the embeddings."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that decides the numbers."""

    def embed_images(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1], of any size -> (B, E) float32 on the CPU."""
