"""What an edit is given: a source, where it is to change, and how; checked. Loads no torch."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from calotype.cascade.image_files import read_rgba
from calotype.cascade.png import noted
from calotype.errors import UsageError
from calotype.generation.canvas import Canvas, Colour, Hole, Pixels, extended, grown, masked
from calotype.storage.reading import file_sha256

MOST_PIXELS = 89_478_485
"""Of a source: what Pillow holds for no decompression bomb."""
MARGIN_STRENGTH = 0.5
"""Of margins, unless told otherwise: from nothing, things of the caption come in pieces there."""
_MOST_MARGIN = 2**15
_MOST_REFINED = 1000


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What is asked of an edit, beside the canvas; all of it is in the recipe.

    Args:
        strength: how much is made anew, in (0, 1]; None = the hole from nothing, margins from the
            nearest pixels (`MARGIN_STRENGTH`).
        vary: aug_level at which the source is enlarged again from its small version; None = not so.
        invert: start from the source's own noise (DDIM inversion), not from random noise.
        refine: corrections of each step of the inversion; 0 = plain.
        source_caption: what an inverted source shows; None = what its recipe says, or "".
        blind: withhold the known pixels from the network.
        resampling: RePaint's jump and repeats; None = off.
        crop: make a hole that is small against its image in a square window round it.
        padding: of that window, as a fraction of the hole.
        feather: pixels outside the hole into which what is made fades.
        background: behind what is transparent, as networks see it.
    """

    strength: float | None = None
    vary: float | None = None
    invert: bool = False
    refine: int = 0
    source_caption: str | None = None
    blind: bool = False
    resampling: tuple[int, int] | None = None
    crop: bool = True
    padding: float = 0.5
    feather: int = 0
    background: Colour = (255, 255, 255)

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("vary", self.vary, 0.0, 1.0),
            ("refine", self.refine, 0, _MOST_REFINED),
            ("padding", self.padding, 0.0, 100.0),
            ("feather", self.feather, 0, 4096),
        ):
            if value is not None and not low <= value <= high:
                raise UsageError(f"got --{name} {value:g}; expected {low:g} to {high:g}")
        if self.strength is not None and not 0 < self.strength <= 1:
            raise UsageError(f"got --strength {self.strength:g}; expected above 0 and at most 1")
        if self.strength is not None and self.vary is not None:
            raise UsageError("got --strength and --vary; expected one of them")
        if self.invert and (self.vary is not None or self.resampling is not None):
            raise UsageError(
                "got --invert with --vary or --resampling, which put other noise in the place of "
                "the image's own; expected one of them"
            )
        if not self.invert and (self.refine > 0 or self.source_caption is not None):
            raise UsageError("got --refine or --source-caption alone; expected --invert beside it")


@dataclass(frozen=True, kw_only=True)
class Region:
    """Where an image is to change; of mask, boxes and margins at most one.

    Args:
        mask: white, or transparent, where it is.
        invert_mask: black, or opaque, instead.
        fit_mask: resize a mask of another size to the source's.
        boxes: left, top, width, height, in pixels.
        extend: margins left, top, right, bottom, in pixels.
        grow: pixels by which the hole is widened.
    """

    mask: str | None = None
    invert_mask: bool = False
    fit_mask: bool = False
    boxes: tuple[tuple[int, int, int, int], ...] = ()
    extend: tuple[int, int, int, int] | None = None
    grow: int = 0

    def __post_init__(self) -> None:
        if self.given > 1:
            raise UsageError("got several of --mask, --box and --extend; expected one of them")
        if self.mask is None and (self.invert_mask or self.fit_mask):
            raise UsageError("got --invert-mask or --fit-mask without a mask; expected --mask FILE")
        if not 0 <= self.grow <= _MOST_MARGIN:
            raise UsageError(f"got --grow {self.grow}; expected 0 to {_MOST_MARGIN}")

    @property
    def given(self) -> int:
        """How many of mask, boxes and margins there are."""
        return (self.mask is not None) + (len(self.boxes) > 0) + (self.extend is not None)


@dataclass(frozen=True, kw_only=True)
class Step(Region, Edit):
    """One edit, whole: what a line of a list says.

    Args:
        caption: what the result shows.
        seed: of the noise.
    """

    caption: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        Region.__post_init__(self)
        Edit.__post_init__(self)
        if self.vary is not None and self.given:
            raise UsageError(
                "got --vary with a mask, a box or margins; it makes all of the image anew: "
                "leave out one of them"
            )
        if (self.grow, self.feather) != (0, 0) and self.mask is None and not self.boxes:
            raise UsageError("got --grow or --feather without a hole; expected --mask or --box")


def read_source(path: Path) -> Pixels:
    """The source of an edit, (H, W, 4).

    Raises:
        UsageError: it cannot be read, holds several images, or is too large.
    """
    return read_rgba(path, most_pixels=MOST_PIXELS, still=True, to_srgb=True)


def with_source_caption(step: Step, source: Path) -> Step:
    """The step, knowing what a source that is to be inverted shows."""
    if not step.invert or step.source_caption is not None:
        return step
    return replace(step, source_caption=noted(source, "caption"))


def canvas_of(pixels: Pixels, region: Step) -> Canvas:
    """The canvas of an edit; of --strength, --vary or --invert alone all of it is the hole.

    Raises:
        UsageError: something does not fit, or nothing is to be generated.
    """
    whole = region.strength is not None or region.vary is not None or region.invert
    if not region.given and not whole:
        raise UsageError(
            "got an edit that does not say what changes; expected --mask, --box, --extend, "
            "--strength, --vary or --invert"
        )
    if region.extend is not None:
        return extended(pixels, _margins(region.extend), most_pixels=MOST_PIXELS)
    hole = np.ones(pixels.shape[:2], bool)
    if region.mask is not None:
        hole = read_mask(Path(region.mask), pixels, region)
    elif region.boxes:
        hole = _boxes(region.boxes, pixels)
    return masked(pixels, grown(hole, region.grow))


def read_mask(path: Path, pixels: Pixels, region: Region) -> Hole:
    """A mask file as the hole of an image: white is generated; transparent, if it has alpha.

    Raises:
        UsageError: it cannot be read, or is of another size.
    """
    try:
        rgba = read_rgba(path, most_pixels=MOST_PIXELS, still=True)
    except UsageError as error:
        raise UsageError(f"the mask: {error}") from error
    height, width = pixels.shape[:2]
    if rgba.shape[:2] != (height, width):
        if not region.fit_mask:
            raise UsageError(
                f"got the mask {path} of {rgba.shape[1]}x{rgba.shape[0]} for an image of "
                f"{width}x{height}, as it is seen upright; expected one size: --fit-mask resizes "
                "the mask"
            )
        rgba = np.asarray(Image.fromarray(rgba).resize((width, height), Image.Resampling.NEAREST))
    alpha = rgba[..., 3]
    grey = 255 - alpha
    if not grey.any():
        grey = np.asarray(Image.fromarray(np.ascontiguousarray(rgba[..., :3])).convert("L"))
    between = int(((grey > 0) & (grey < 255)).sum())
    if between > 0:
        print(
            f"calotype: {between:,} pixels of the mask are neither black nor white; those from 128 "
            "on are generated",
            file=sys.stderr,
        )
    hole = grey >= 128
    return ~hole if region.invert_mask else hole


def mask_digest(region: Region) -> str | None:
    """SHA-256 of the mask's file; None = there is none."""
    return None if region.mask is None else file_sha256(Path(region.mask))


def _boxes(boxes: Sequence[tuple[int, int, int, int]], pixels: Pixels) -> Hole:
    height, width = pixels.shape[:2]
    hole = np.zeros((height, width), bool)
    for left, top, wide, high in boxes:
        if min(left, top) < 0 or min(wide, high) < 1 or left + wide > width or top + high > height:
            raise UsageError(
                f"got --box {left},{top},{wide},{high} in an image of {width}x{height}; expected "
                "left,top,width,height within it"
            )
        hole[top : top + high, left : left + wide] = True
    return hole


def _margins(margins: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    if min(margins) < 0 or max(margins) > _MOST_MARGIN or sum(margins) == 0:
        raise UsageError(
            f"got --extend {','.join(map(str, margins))}; expected left,top,right,bottom in "
            f"pixels, 0 to {_MOST_MARGIN}, one of them above 0"
        )
    return margins


def parse_four(option: str, text: str) -> tuple[int, int, int, int]:
    """Four whole numbers with commas between them."""
    parts = text.split(",")
    if len(parts) != 4 or not all(re.fullmatch(r"\s*-?[0-9]{1,7}\s*", part) for part in parts):
        raise UsageError(
            f"got {option} {text!r:.80}; expected four whole numbers of at most 7 digits: 0,0,64,64"
        )
    first, second, third, fourth = map(int, parts)
    return first, second, third, fourth


def parse_pair(option: str, text: str) -> tuple[int, int]:
    """Two positive whole numbers with a comma between them."""
    match = re.fullmatch(r"\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*", text)
    if match is None or min(int(match[1]), int(match[2])) < 1:
        raise UsageError(f"got {option} {text!r:.80}; expected two whole numbers above 0: 4,4")
    return int(match[1]), int(match[2])


def parse_colour(text: str) -> Colour:
    """A colour as Pillow reads it: a name, #rrggbb, rgb(...)."""
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError as error:
        raise UsageError(
            f"got --background {text!r:.80}; expected a colour: white, '#ffcc00'"
        ) from error
    return red, green, blue
