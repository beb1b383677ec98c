"""Embeddings of images computed ahead, in the store that captions have.

An entry is keyed by the image's key and the background it was painted on: one image on two
backgrounds has two embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from calotype.errors import CalotypeError
from calotype.text.layout import store_cards
from calotype.text.store import CaptionStore
from calotype.vision.clip import ClipModel

KIND = "clip-image:"
"""What the names of encoders of images begin with, e.g. clip-image:RUN; alone, the embedded one."""

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)


def image_key(key: str, background: Colour | None) -> str:
    """What an example's image is stored under; background: red, green, blue, None = white."""
    return "\x1f".join((key, ",".join(map(str, background or WHITE))))


class ImageEmbeddings:
    """Reads the embeddings that `calotype data embed --encoder clip-image:...` made.

    Args:
        folder: DATA/embeddings, or wherever they were put.
        encoder: that they have to be of.

    Raises:
        CalotypeError: there are none of this encoder.
    """

    def __init__(self, folder: Path, encoder: ClipModel) -> None:
        cards = [card for card in store_cards(folder) if card.spec.startswith(KIND)]
        for card in cards:
            if (card.fingerprint, card.embed_dim) == (encoder.fingerprint, encoder.embed_dim):
                self._store = CaptionStore(card)
                return
        found = [f"{card.fingerprint:.12} of width {card.embed_dim}" for card in cards]
        raise CalotypeError(
            f"got embeddings of images by {', '.join(found) or 'no encoder'} in {folder}; expected "
            f"those of {encoder.fingerprint:.12} of width {encoder.embed_dim}: run calotype data "
            "embed with that CLIP"
        )

    def __call__(self, keys: Sequence[str], backgrounds: Sequence[Colour | None]) -> Tensor:
        """Embeddings of images, (B, E).

        Raises:
            LookupError: one was not embedded, or its image could not be read then.
        """
        names = [image_key(key, colour) for key, colour in zip(keys, backgrounds, strict=True)]
        found = self._store[names]
        if not bool(found.mask.all()):
            broken = keys[int(torch.argmin(found.mask.all(1).long()))]
            raise LookupError(f"got {broken!r}, whose image cannot be read; leave it out")
        return found.tokens[:, 0]
