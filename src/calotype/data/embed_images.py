"""Embeddings of images, painted as their captions ask, computed ahead as captions' are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from calotype.conditioning import TextEmbedding
from calotype.data.images import BrokenImage
from calotype.data.painting import painted
from calotype.data.resize import fit_image
from calotype.data.source import EncodedSource
from calotype.data.work import Chunk, source_of
from calotype.vision.clip import ClipModel
from calotype.vision.store import KIND, WHITE, Colour, image_key

Painted = Mapping[str, tuple[int, Colour]]
"""Number of the example and background, by the key of the store."""


class PaintedImages:
    """Images by the key of the store; to the store it is an encoder as any other.

    Args:
        model: embeds them.
        source: has them.
        keys: which image, on which background, each key means.
    """

    max_tokens = 1

    def __init__(self, model: ClipModel, source: EncodedSource | None, keys: Painted) -> None:
        self.spec = f"{KIND}{model.name}"
        self.embed_dim = model.embed_dim
        self.fingerprint = model.fingerprint
        self._model, self._source, self._painted = model, source, keys

    def __call__(self, captions: Sequence[str]) -> TextEmbedding:
        """One state, (B, 1, E), of each image whose key stands here for a caption.

        An image that cannot be read has none.
        """
        side = self._model.file.clip.image.resolution
        pixels = np.zeros((len(captions), side, side, 4), np.uint8)
        mask = torch.ones(len(captions), 1, dtype=torch.bool)
        colours = np.array([self._painted[key][1] for key in captions], np.float32)
        for row, key in enumerate(captions):
            assert self._source is not None
            try:
                pixels[row] = fit_image(self._source[self._painted[key][0]].image, side)
            except BrokenImage:
                mask[row] = False
        states = self._model.embed_images(painted(pixels, colours))
        return TextEmbedding(states[:, None], mask)


def painted_images(model: ClipModel, chunk: Chunk) -> tuple[PaintedImages, Painted]:
    """The images of a chunk on all backgrounds that their captions ask for, and their keys."""
    source = source_of(chunk.data)
    keys: dict[str, tuple[int, Colour]] = {}
    with source.report.apart():
        for index in range(chunk.start, chunk.stop):
            captions = source.captions(index)[: chunk.data.selection.variants]
            for colour in {WHITE, *(c.background or WHITE for c in captions)}:
                keys[image_key(source.key(index), colour)] = (index, colour)
    return PaintedImages(model, source, keys), keys
