"""Which pixels a network that in-paints is trained without."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from calotype.config.ranges import Fraction, Range, Settings, in_range, require

Area = Annotated[float, Range(0.001, 1.0)]


@dataclass(frozen=True, kw_only=True)
class HolesConfig(Settings):
    """One kind of hole.

    Args:
        fraction: of the training rows that get it.
        smallest: hidden fraction of the image, at least; it is uniform between both.
        largest: hidden fraction, at most.
    """

    fraction: Fraction
    smallest: Area = 0.1
    largest: Area = 0.6

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("largest", self.largest, self.smallest, 1.0)


@dataclass(frozen=True, kw_only=True)
class MasksConfig(Settings):
    """What is hidden of the training images; the network sees the rest, without noise.

    Reference: Nichol et al. 2021, section 2.4, arXiv:2112.10741 (erased regions).

    Args:
        whole: fraction of the rows of which nothing is known, as in plain sampling.
        boxes: rectangles.
        strokes: of a brush.
        borders: a side, two sides that meet, or all four, as out-painting wants.
        silhouettes: what the image shows, by its transparency, grown until the area is hidden; all
            of an image that is opaque.
    """

    whole: Fraction = 0.3
    boxes: HolesConfig = field(default_factory=lambda: HolesConfig(fraction=0.2))
    strokes: HolesConfig = field(default_factory=lambda: HolesConfig(fraction=0.15))
    borders: HolesConfig = field(default_factory=lambda: HolesConfig(fraction=0.15))
    silhouettes: HolesConfig = field(default_factory=lambda: HolesConfig(fraction=0.2))

    def __post_init__(self) -> None:
        super().__post_init__()
        total = self.whole + sum(holes.fraction for holes in self.holes)
        require(
            abs(total - 1) < 1e-6,
            f"got masks whose fractions add up to {total:g}; expected 1: change masks.whole",
        )

    @property
    def holes(self) -> tuple[HolesConfig, HolesConfig, HolesConfig, HolesConfig]:
        """Boxes, strokes, borders, silhouettes."""
        return self.boxes, self.strokes, self.borders, self.silhouettes
