"""Sheets: real images and drawings side by side, with what was asked for below."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from calotype.cascade.pixels import to_pixels
from calotype.data.resize import area_resize
from calotype.errors import CalotypeError
from calotype.storage.files import write_file

MAX_BYTES = 1_500_000
_GAP = 8
_LINES = 2
_TEXT, _FAILED, _PAPER = (40, 40, 40), (200, 20, 20), (244, 244, 244)
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_QUALITIES = (90, 85, 80, 70, 60, 45, 30)


@dataclass(frozen=True)
class Cell:
    """One place of a sheet.

    Args:
        images: shown side by side, each (3, H, W) in [-1, 1], of any sizes.
        caption: printed below, cut to two lines.
        failed: prints the caption in red.
    """

    images: tuple[Tensor, ...]
    caption: str
    failed: bool = False


def draw_sheet(cells: Sequence[Cell], *, columns: int, side: int) -> Image.Image:
    """Lay cells out in rows.

    Args:
        cells: at least one; all with as many images.
        columns: cells a row.
        side: each image's in pixels; small ones are enlarged without smoothing by whole
            factors, others resized as training does.
    """
    count = len(cells[0].images)
    font = ImageFont.load_default(max(10, min(18, side // 12)))
    line = round(getattr(font, "size", 10) * 1.25)
    width, height = count * side + _GAP, side + _LINES * line + _GAP
    columns = min(columns, len(cells))
    rows = math.ceil(len(cells) / columns)
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        left, top = _GAP + column * width, _GAP + row * height
        for place, image in enumerate(cell.images):
            pixels = to_pixels(_sized(image, side)[None])[0]
            sheet.paste(Image.fromarray(pixels), (left + place * side, top))
        text = "\n".join(_wrapped(cell.caption, font, count * side))
        colour = _FAILED if cell.failed else _TEXT
        pen.multiline_text((left, top + side + 1), text, fill=colour, font=font, spacing=1)
    return sheet


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
        f"{path.name} takes {len(stream.getvalue())} bytes; expected at most {limit}: draw fewer "
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
