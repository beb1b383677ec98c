"""The connected parts of an image: how many there are, where, and what each of them looks like.

The ground is the colour of most of the image's rim, and a part is what differs from it and hangs
together. Everything is done at 64 x 64, whatever an image's size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calotype.data.resize import area_resize
from calotype.errors import MissingExtra

SIDE = 64
CUT_SIDE = 16
RIM = 3
WHITE = torch.full((3,), 255.0)
# Thresholds, from real images: see `proof`.
_DIFFERS = 16  # of 255, in any channel
_JOINED = 1  # pixels by which parts are grown before they are connected
_SMALLEST = 0.25  # of the largest part's area; smaller ones are specks and details


@dataclass(frozen=True)
class Part:
    """A connected part: its mask, (64, 64) bool, and the centre of its box in [0, 1]."""

    mask: NDArray[np.bool_]

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns."""
        rows, columns = np.nonzero(self.mask)
        return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)

    @property
    def x(self) -> float:
        """The centre, from the left."""
        return float(self.box[1].start + self.box[1].stop) / 2 / SIDE

    @property
    def y(self) -> float:
        """The centre, from the top."""
        return float(self.box[0].start + self.box[0].stop) / 2 / SIDE


def small(image: Tensor) -> Tensor:
    """A uint8 image, (3, H, W), as float32 in [0, 255], (3, 64, 64)."""
    return area_resize(image[None].float(), SIDE)[0].clamp(0, 255)


def rim(image: Tensor) -> Tensor:
    """The pixels of the outermost three rows and columns, (3, N)."""
    inside = torch.zeros(image.shape[1:], dtype=torch.bool)
    inside[RIM:-RIM, RIM:-RIM] = True
    return image[:, ~inside]


def shown(image: Tensor, ground: Tensor | None = None) -> NDArray[np.bool_]:
    """What differs from the ground, (64, 64), of an image by `small`.

    `ground` is a colour, (3,) in [0, 255]; None is the rim's, by each channel's median.
    """
    ground = rim(image).median(1).values if ground is None else ground
    differs: NDArray[np.bool_] = ((image - ground[:, None, None]).abs().amax(0) > _DIFFERS).numpy()
    return differs


def find_parts(image: Tensor, ground: Tensor | None = None) -> list[Part]:
    """The parts of an image by `small`, without specks, the largest first; see `shown`.

    Raises:
        MissingExtra: scipy is not installed.
    """
    try:
        from scipy import ndimage
    except ImportError as error:
        raise MissingExtra("evaluate", "scipy") from error
    mask = shown(image, ground)
    grown = ndimage.binary_dilation(mask, iterations=_JOINED)
    labels, count = ndimage.label(grown, np.ones((3, 3)))
    masks = sorted(((labels == n + 1) & mask for n in range(count)), key=np.sum, reverse=True)
    return [Part(m) for m in masks if m.sum() >= _SMALLEST * masks[0].sum()]


def whole(image: Tensor, ground: Tensor | None = None) -> Part | None:
    """All that is shown as one part; None if there is nothing."""
    mask = shown(image, ground)
    return Part(mask) if mask.any() else None


def cut_out(image: Tensor, part: Part) -> Tensor:
    """A part alone on a white square, (3, 16, 16) in [0, 255], of an image by `small`."""
    rows, columns = part.box
    pixels = torch.where(torch.from_numpy(part.mask), image, 255.0)[:, rows, columns]
    height, width = pixels.shape[1:]
    side = max(height, width)
    square = torch.full((3, side, side), 255.0)
    top, left = (side - height) // 2, (side - width) // 2
    square[:, top : top + height, left : left + width] = pixels
    return area_resize(square[None], CUT_SIDE)[0].clamp(0, 255)
