"""Compositions of real images whose truth is known: how many, where, which, in what colour."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from calotype.data.resize import area_resize
from calotype.emoji.eleven.parts import SIDE
from calotype.emoji.eleven.references import References
from calotype.emoji.prompts import ImageRow

_LUMA = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
Spot = tuple[float, float]
"""The centre of a thing, from the left and from the top, in [0, 1]."""


class Composer:
    """Makes uint8 images, (3, 64, 64), of the real ones; random numbers are an argument."""

    def __init__(self, references: References, rng: random.Random) -> None:
        self._references = references
        self._rng = rng

    def rgba(self, row: ImageRow) -> Tensor:
        """The real image, premultiplied, (4, 64, 64) in [0, 1]."""
        gallery = self._references.gallery
        return gallery.images[gallery.places[row.key]].float() / 255

    def varied(self, row: ImageRow) -> Tensor:
        """The real image, up to a sixteenth smaller, moved; and blurred, or as JPEG, or neither."""
        side = self._rng.randint(SIDE - SIDE // 16, SIDE)
        canvas = torch.zeros(4, SIDE, SIDE)
        self._paste(canvas, row, [self._rng.randint(0, SIDE - side) for _ in "xy"], side)
        match self._rng.randrange(3):
            case 0:
                return _as_jpeg(_on_white(canvas))
            case 1:
                return _on_white(area_resize(area_resize(canvas[None], SIDE * 3 // 4), SIDE)[0])
            case _:
                return _on_white(canvas)

    def scattered(self, rows: Sequence[ImageRow]) -> Tensor:
        """Things apart from each other, in cells of a grid chosen at random."""
        across = 2 if len(rows) <= 2 else 3
        cells = [(column, row) for column in range(across) for row in range(across)]
        spots = self._rng.sample(cells, len(rows))
        cell = SIDE // across
        canvas = torch.zeros(4, SIDE, SIDE)
        for row, (column, line) in zip(rows, spots, strict=True):
            side = self._rng.randint(cell - 7, cell - 3)
            left, top = (
                at * cell + 2 + self._rng.randint(0, cell - 3 - side) for at in (column, line)
            )
            self._paste(canvas, row, (left, top), side)
        return _on_white(canvas)

    def placed(self, rows: Sequence[ImageRow], spots: Sequence[Spot]) -> Tensor:
        """Things with their centres at places, a third of the image wide or a little more."""
        canvas = torch.zeros(4, SIDE, SIDE)
        for row, (x, y) in zip(rows, spots, strict=True):
            side = self._rng.randint(20, 26)
            left, top = (min(max(round(at * SIDE - side / 2), 0), SIDE - side) for at in (x, y))
            self._paste(canvas, row, (left, top), side)
        return _on_white(canvas)

    def recoloured(self, row: ImageRow, colour: tuple[int, int, int]) -> Tensor:
        """The thing in one colour: darker and lighter where it was, by at most a quarter."""
        rgba = self.rgba(row)
        alpha = rgba[3:]
        luma = (rgba[:3] * _LUMA).sum(0, keepdim=True) / alpha.clamp(min=1e-3)
        mean = (luma * alpha).sum() / alpha.sum()
        spread = ((luma - mean).square() * alpha).sum().div(alpha.sum()).sqrt().clamp(min=0.02)
        shade = ((luma - mean) / spread).clamp(-2, 2) * 0.12
        main = torch.tensor(colour)[:, None, None] / 255
        shaded = torch.where(shade < 0, main * (1 + shade), main + (1 - main) * shade)
        return _on_white(torch.cat((shaded * alpha, alpha)))

    def _paste(self, canvas: Tensor, row: ImageRow, corner: Sequence[int], side: int) -> None:
        left, top = corner
        thing = area_resize(self.rgba(row)[None], side)[0]
        under = canvas[:, top : top + side, left : left + side]
        under.copy_(thing + (1 - thing[3:]) * under)


def on_colour(references: References, row: ImageRow, colour: tuple[int, int, int]) -> Tensor:
    """The real image over a colour."""
    return references.real(row, colour).round().byte()


def _as_jpeg(image: Tensor) -> Tensor:
    stream = io.BytesIO()
    pixels = image.permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90, subsampling=0)
    return torch.from_numpy(np.array(Image.open(stream))).permute(2, 0, 1)


def _on_white(rgba: Tensor) -> Tensor:
    pixels: Tensor = ((rgba[:3] + 1 - rgba[3:]) * 255).clamp(0, 255).round().byte()
    return pixels
