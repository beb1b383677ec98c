"""The image that is edited: what of it is made anew, in which windows, and how they come back.

Kept pixels never pass through a network: they are copied from the decoded source. Loads no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

from calotype.cascade.image_files import over_colour
from calotype.errors import UsageError

Colour = tuple[int, int, int]
Pixels = NDArray[np.uint8]
Hole = NDArray[np.bool_]


@dataclass(frozen=True)
class Window:
    """A part of a canvas, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )


@dataclass(frozen=True)
class Canvas:
    """An image and the pixels that are to be made.

    Args:
        pixels: (H, W, 4), straight alpha.
        hole: True = to be made, (H, W).
        source: where the source lies, if the canvas is larger than it.
    """

    pixels: Pixels
    hole: Hole
    source: Window

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.hole.shape
        return height, width

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the size and of the hole."""
        return hashlib.sha256(
            repr(self.size).encode() + np.packbits(self.hole).tobytes()
        ).hexdigest()


def extended(pixels: Pixels, margins: tuple[int, int, int, int], *, most_pixels: int) -> Canvas:
    """A canvas whose hole is a margin round the source.

    Args:
        pixels: the source, (H, W, 4).
        margins: left, top, right, bottom, in pixels.
        most_pixels: that the canvas may have.

    Raises:
        UsageError: it would have more.
    """
    left, top, right, bottom = margins
    height, width = pixels.shape[:2]
    if (height + top + bottom) * (width + left + right) > most_pixels:
        raise UsageError(
            f"got --extend {','.join(map(str, margins))} for an image of {width}x{height}, which "
            f"makes {width + left + right}x{height + top + bottom}; expected at most "
            f"{most_pixels:,} pixels: extend it less"
        )
    # What a network sees there before it is made: the nearest pixels.
    around = ((top, bottom), (left, right))
    hole = np.pad(np.zeros((height, width), bool), around, constant_values=True)
    larger = np.pad(pixels, (*around, (0, 0)), mode="edge")
    return Canvas(larger, hole, Window(top, left, height, width))


def masked(pixels: Pixels, hole: Hole) -> Canvas:
    """A canvas of the source's size.

    Raises:
        UsageError: nothing is to be made.
    """
    height, width = pixels.shape[:2]
    if not hole.any():
        raise UsageError(
            "got a mask in which nothing is to be generated; expected white, or transparent, where "
            "the image is to change: see --invert-mask"
        )
    return Canvas(pixels, hole, Window(0, 0, height, width))


def grown(hole: Hole, pixels: int) -> Hole:
    """The hole and all within so many pixels of it, in a square sense."""
    if pixels <= 0:
        return hole
    image = Image.fromarray(hole.astype(np.uint8) * 255)
    step = 7  # a large filter is slow; many small ones are the same
    while pixels > 0:
        image = image.filter(ImageFilter.MaxFilter(2 * min(step, pixels) + 1))
        pixels -= step
    return np.asarray(image) > 0


def window_round(canvas: Canvas, padding: float) -> Window:
    """A square round the hole, `padding` of its larger side wider on each side; at most all."""
    height, width = canvas.size
    rows, columns = np.flatnonzero(canvas.hole.any(1)), np.flatnonzero(canvas.hole.any(0))
    high, wide = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
    side = round(max(high, wide) * (1 + 2 * padding))
    if side >= min(height, width):
        return Window(0, 0, height, width)
    top = int(np.clip(rows[0] + high // 2 - side // 2, 0, height - side))
    left = int(np.clip(columns[0] + wide // 2 - side // 2, 0, width - side))
    return Window(top, left, side, side)


def windows_outward(canvas: Canvas, *, least: int = 1) -> Iterator[Window]:
    """Squares that cover a margin from the source outward, each half over what is there by then.

    Args:
        canvas: with the margin.
        least: side of the squares where the source is smaller, as far as there is room.
    """
    height, width = canvas.size
    side = min(max(min(canvas.source.height, canvas.source.width), least), height, width)
    box = canvas.source
    tops = _starts(box.top, box.height, height, side)
    lefts = _starts(box.left, box.width, width, side)

    def outside(start: int, begin: int, length: int) -> int:
        return max(begin - start, start + side - begin - length, 0)

    places = [(top, left) for top in tops for left in lefts]
    # First straight on, then the corners, whose both neighbours are there then.
    far = {
        place: (outside(place[0], box.top, box.height), outside(place[1], box.left, box.width))
        for place in places
    }
    for top, left in sorted(places, key=lambda place: (sum(far[place]), place)):
        yield Window(top, left, side, side)


def _starts(begin: int, length: int, total: int, side: int) -> list[int]:
    """Where windows begin along an axis: half a window apart, from those at the source on."""
    first = max(0, min(begin, begin + length - side, total - side))
    last = max(first, min(begin + length - side, total - side))
    starts = {*range(first, last, max(1, side // 2)), last}
    start = first
    while start > 0:
        start = max(0, start - max(1, side // 2))
        starts.add(start)
    start = last
    while start < total - side:
        start = min(total - side, start + max(1, side // 2))
        starts.add(start)
    return sorted(starts)


def view(canvas: Canvas, window: Window, size: tuple[int, int], background: Colour) -> Pixels:
    """What a network sees of a window: over the background, (h, w, 3), of the network's size."""
    part = over_colour(np.ascontiguousarray(canvas.pixels[window.slices]), background)
    height, width = size
    return np.asarray(Image.fromarray(part).resize((width, height), Image.Resampling.LANCZOS))


def hole_view(canvas: Canvas, window: Window, size: tuple[int, int], *, feather: int = 0) -> Hole:
    """The hole in a window, of the network's size: hidden is what any hidden pixel lies under.

    Over the pixels that what is made fades into it is made, too.
    """
    hole = grown(canvas.hole[window.slices], feather)
    part = Image.fromarray(hole.astype(np.uint8) * 255)
    height, width = size
    if (height, width) == part.size[::-1]:
        return np.asarray(part) > 0
    return np.asarray(part.resize((width, height), Image.Resampling.BOX)) > 0


def filled(canvas: Canvas, window: Window, made: Pixels, *, feather: int) -> Canvas:
    """The canvas with a window's hole filled in by what was made, (h, w, 3), of any size.

    Made pixels are opaque. With `feather` they fade into so many of the pixels outside.
    """
    rows, columns = window.slices
    size = (window.width, window.height)
    image = Image.fromarray(made)
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    new = np.dstack((np.asarray(image), np.full((window.height, window.width), 255, np.uint8)))
    hole = canvas.hole[rows, columns]
    pixels = canvas.pixels.copy()
    old = pixels[rows, columns]
    pixels[rows, columns] = np.where(hole[..., None], new, old)
    if feather > 0:
        weight = _feathered(hole, feather)[..., None]
        blended = np.rint(new * weight + old * (1 - weight)).astype(np.uint8)
        pixels[rows, columns] = np.where(hole[..., None], new, blended)
    left = canvas.hole.copy()
    left[rows, columns] = False
    return replace(canvas, pixels=pixels, hole=left)


def without_alpha(pixels: Pixels) -> Pixels:
    """(H, W, 3) of pixels that are all opaque; others as they are."""
    opaque = bool((pixels[..., 3] == 255).all())
    return np.ascontiguousarray(pixels[..., :3] if opaque else pixels)


def _feathered(hole: Hole, width: int) -> NDArray[np.float64]:
    """1 in the hole, falling to 0 over `width` pixels outside it."""
    weight, ring = hole.astype(float), Image.fromarray(hole.astype(np.uint8) * 255)
    for distance in range(1, width + 1):
        wider = ring.filter(ImageFilter.MaxFilter(3))
        added = np.asarray(ImageChops.subtract(wider, ring)) > 0
        weight[added] = 1 - distance / (width + 1)
        ring = wider
    return weight
