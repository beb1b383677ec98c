"""The real images that emoji-11's checks compare samples with, and what is made of them once."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from calotype.emoji.eleven.parts import SIDE, WHITE, Part, cut_out, find_parts, rim, whole
from calotype.emoji.gallery import Gallery, read_gallery
from calotype.emoji.prompts import ImageRow
from calotype.evaluation.features.extractor import Extractor
from calotype.evaluation.features.lite0 import Lite0
from calotype.evaluation.retrieval import NEAREST, THUMBNAIL_SIDE, concept_rank, thumbnails

_CLEARLY = 0.85
"""Of two distances: the first is clearly the smaller one. From real images: see `proof`."""


@dataclass(frozen=True)
class Cuts:
    """The things of one style, cut out: (N, 3, 16, 16) in [0, 255], and what they are."""

    images: Tensor
    concepts: tuple[str, ...]


class References:
    """Real images at 64 x 64. All images that are judged are float32, (3, 64, 64) in [0, 255]."""

    def __init__(self, gallery: Gallery, features: Extractor | None = None) -> None:
        """`features` None: `lite0`, loaded when a style is first asked for."""
        self.gallery = gallery
        self._given = features
        self._cuts: dict[str, Cuts] = {}
        self._styles: dict[str, dict[str, Tensor]] = {}

    @classmethod
    def read(cls, data: Path) -> References:
        """Read a set's folder.

        Raises:
            UsageError: there is no such set.
        """
        return cls(read_gallery(data, SIDE))

    @cached_property
    def features(self) -> Extractor:
        """The features that tell styles apart."""
        return Lite0() if self._given is None else self._given

    @cached_property
    def _of_concept(self) -> dict[str, list[ImageRow]]:
        found = defaultdict[str, list[ImageRow]](list)
        for row in self.gallery.rows:
            found[row.concept].append(row)
        return found

    def row(self, key: str) -> ImageRow:
        """What the set says of an image."""
        return self.gallery.rows[self.gallery.places[key]]

    def real(self, row: ImageRow, background: tuple[int, int, int] | None = None) -> Tensor:
        """The real image, over a colour (white)."""
        return (self.gallery.real(row.key, background) + 1) * 127.5

    def has_ground(self, row: ImageRow) -> bool:
        """Whether most of the real image's rim is transparent."""
        alpha = self.gallery.images[self.gallery.places[row.key]][3:]
        return bool((rim(alpha) < 26).float().mean() >= 0.5)

    def is_one_part(self, row: ImageRow) -> bool:
        """Whether the real image itself is one connected part."""
        return len(find_parts(self.real(row), WHITE)) == 1

    def is_found(self, image: Tensor, row: ImageRow) -> bool:
        """Whether the row's concept is among the nearest real images of its style."""
        pool = self.gallery.pool(row)
        small = thumbnails(image[None] / 127.5 - 1, THUMBNAIL_SIDE)[0]
        return concept_rank(small, pool.images, pool.concepts, concept=row.concept) < NEAREST

    def is_part_found(self, image: Tensor, part: Part, row: ImageRow) -> bool:
        """The same of one part, among the things of the style, cut out as the part is."""
        pool = self.cuts(row.style)
        cut = cut_out(image, part)
        return concept_rank(cut, pool.images, pool.concepts, concept=row.concept) < NEAREST

    def cuts(self, style: str) -> Cuts:
        """The trained things of a style, cut out."""
        if style not in self._cuts:
            images, concepts = list[Tensor](), list[str]()
            for row in self.gallery.rows:
                if row.style == style and row.split == "train":
                    image = self.real(row)
                    part = whole(image, WHITE)
                    if part is not None:
                        images.append(cut_out(image, part))
                        concepts.append(row.concept)
            self._cuts[style] = Cuts(torch.stack(images), tuple(concepts))
        return self._cuts[style]

    def is_in_style(self, image: Tensor, concept: str, style: str) -> bool | None:
        """Whether of the concept's real images the one in this style is nearest, in features.

        None if another style's is about as near: at 64 x 64 the glossy and the 3d renderings of
        some concepts are nearly the same image.
        """
        known = self._styles_of(concept)
        found = self.features(image[None].round().byte())[0]
        distances = {name: float((real - found).norm()) for name, real in known.items()}
        own = distances.pop(style)
        other = min(distances.values(), default=float("inf"))
        if own <= _CLEARLY * other:
            return True
        return False if other <= _CLEARLY * own else None

    def _styles_of(self, concept: str) -> dict[str, Tensor]:
        if concept not in self._styles:
            rows = self._of_concept[concept]
            real = self.features(torch.stack([self.real(row) for row in rows]).round().byte())
            self._styles[concept] = dict(zip((row.style for row in rows), real, strict=True))
        return self._styles[concept]
