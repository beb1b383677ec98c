"""Sheets: real images and samples side by side, with what was asked for below."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from calotype.cascade.pixels import contact_sheet, to_pixels
from calotype.data.resize import area_resize
from calotype.errors import CalotypeError
from calotype.storage.files import write_file

MAX_BYTES = 1_500_000
_GAP = 8
_LINES = 2
_TEXT, _FAILED, _PAPER = (40, 40, 40), (200, 20, 20), 244
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_QUALITIES = (90, 85, 80, 70, 60, 45, 30)


@dataclass(frozen=True)
class Cell:
    """One place of a sheet: images side by side, each (3, H, W) in [-1, 1], of any sizes.

    The caption is printed below, cut to two lines, in red if it `failed`.
    """

    images: tuple[Tensor, ...]
    caption: str
    failed: bool = False


def render_sheet(cells: Sequence[Cell], *, columns: int, side: int) -> Image.Image:
    """Lay cells out in rows.

    Args:
        cells: at least one; all with as many images.
        columns: cells a row.
        side: each image's in pixels; small ones are enlarged without smoothing by whole
            factors, others resized as training does.
    """
    font = ImageFont.load_default(max(10, min(18, side // 12)))
    tiles = [_tile(cell, side, font) for cell in cells]
    sheet = contact_sheet(tiles, columns=min(columns, len(cells)), gap=_GAP, paper=_PAPER)
    margins = ((_GAP, _GAP), (_GAP, _GAP), (0, 0))
    return Image.fromarray(np.pad(sheet, margins, constant_values=_PAPER))


def _tile(cell: Cell, side: int, font: _Font) -> np.ndarray:
    """A cell's images and, below, its caption."""
    pixels = [to_pixels(_sized(image, side)[None])[0] for image in cell.images]
    line = round(getattr(font, "size", 10) * 1.25)
    width = len(pixels) * side
    tile = Image.new("RGB", (width, side + _LINES * line), (_PAPER,) * 3)
    tile.paste(Image.fromarray(contact_sheet(pixels, columns=len(pixels))))
    text = "\n".join(_wrapped(cell.caption, font, width))
    colour = _FAILED if cell.failed else _TEXT
    ImageDraw.Draw(tile).multiline_text((0, side + 1), text, fill=colour, font=font, spacing=1)
    return np.asarray(tile)


def save_image(image: Image.Image, path: Path, *, limit: int = MAX_BYTES) -> None:
    """Write a PNG or, where the name says so, a JPEG of the best quality that stays in `limit`.

    Raises:
        CalotypeError: it cannot be written, or does not become small enough.
    """
    kind = "JPEG" if path.suffix in (".jpg", ".jpeg") else "PNG"
    attempts = [{"quality": quality} for quality in _QUALITIES] if kind == "JPEG" else [{}]
    for options in attempts:
        stream = io.BytesIO()
        image.save(stream, kind, optimize=True, **options)
        if len(stream.getvalue()) <= limit:
            write_file(path, stream.getvalue())
            return
    raise CalotypeError(
        f"{path.name} takes {len(stream.getvalue())} bytes; expected at most {limit}: put fewer "
        "images on it, or smaller ones"
    )


def _sized(image: Tensor, side: int) -> Tensor:
    image = image.detach().float().cpu()
    factor = side // max(image.shape[1:])
    if factor >= 1 and image.shape[1] * factor == image.shape[2] * factor == side:
        return image.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)
    return area_resize(image[None], side)[0]


def _wrapped(text: str, font: _Font, width: int) -> list[str]:
    lines: list[str] = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    kept = lines[:_LINES]
    if len(lines) > _LINES:
        kept[-1] += " …"
    return [_cut(line, font, width) for line in kept]


def _cut(line: str, font: _Font, width: int) -> str:
    while font.getlength(line) > width and len(line) > 2:
        line = line[:-2].rstrip() + "…"
    return line


def at_most(image: Tensor, side: int) -> Tensor:
    """An image, (3, S, S), no finer than `side` pixels."""
    return area_resize(image[None], min(side, int(image.shape[-1])))[0]


@dataclass(frozen=True)
class Detail:
    """A part of an image: a quarter of each side, from `top` and `left` eighths of it."""

    top: int
    left: int

    def crop(self, image: Tensor) -> Tensor:
        """This part of a square image, (3, S, S)."""
        eighth = image.shape[-1] // 8
        top, left = self.top * eighth, self.left * eighth
        return image[:, top : top + 2 * eighth, left : left + 2 * eighth].clone()


def most_detailed(image: Tensor) -> Detail:
    """Where a square image, (3, S, S) with S at least 8, changes most from pixel to pixel."""
    across = image.diff(dim=2, append=image[..., -1:]).abs()
    down = image.diff(dim=1, append=image[:, -1:]).abs()
    blocks = area_resize((across + down).mean(0)[None, None], 8)[0, 0]
    sums = blocks.unfold(0, 2, 1).unfold(1, 2, 1).sum((2, 3))
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return Detail(top, left)
