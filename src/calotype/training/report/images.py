"""Sheets of drawings as data URIs, scaled down where they are large."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from calotype.storage.reading import read_regular
from calotype.training.record import RunRecord

MOST_FRAMES = 24
"""Sheets of a stage that are shown: evenly chosen, the first and the last among them."""
_MOST_BYTES = 2**30
_KEPT_BYTES = 200_000
_LARGEST_SIDE = 1400
_QUALITY = 85
_SHOWN_WIDTH = 1100


@dataclass(frozen=True)
class Frame:
    """A sheet of drawings.

    Args:
        images: images seen when it was drawn.
        uri: the image itself.
        width: in pixels.
        height: in pixels.
    """

    images: int
    uri: str
    width: int
    height: int

    @property
    def scale(self) -> int:
        """How many times its size it is shown at: drawings of a few pixels are hard to see."""
        return max(1, min(8, _SHOWN_WIDTH // self.width))


@dataclass(frozen=True)
class Film:
    """The sheets of one stage, in order.

    Args:
        title: of the stage.
        frames: that are shown.
        count: of all sheets.
        captions: of the images, row by row; empty for super-resolution.
    """

    title: str
    frames: tuple[Frame, ...]
    count: int
    captions: tuple[str, ...]


def films(run: RunRecord) -> list[Film]:
    """The drawings of each stage that has any."""
    found, previous = [], 0.0
    segments, images = run.segments, run.steps["images"]
    for number, (size, part) in enumerate(segments):
        last = number == len(segments) - 1
        end = float("inf") if last else float(images[part.stop - 1])
        sheets = [(seen, path) for seen, path in run.grids.items() if previous < seen <= end]
        chosen = np.unique(np.linspace(0, len(sheets) - 1, min(len(sheets), MOST_FRAMES)).round())
        frames = [_frame(*sheets[int(place)]) for place in chosen]
        shown = tuple(frame for frame in frames if frame is not None)
        if shown:
            captions = _captions(run, size)
            found.append(Film(f"{size} pixels", shown, count=len(sheets), captions=captions))
        previous = end
    return found


def _captions(run: RunRecord, size: int) -> tuple[str, ...]:
    for stage in run.stages:
        config = stage.get("stage")
        if not isinstance(config, dict) or config.get("resolution") != size:
            continue
        captions = stage.get("grid_captions")
        if config.get("lowres_resolution") is None and isinstance(captions, list):
            return tuple(str(caption) for caption in captions)
    return ()


def _frame(images: int, path: Path) -> Frame | None:
    """The sheet at its size where the file is small, else a smaller JPEG; None if unreadable."""
    try:
        data = read_regular(path, most_bytes=_MOST_BYTES)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if len(data) <= _KEPT_BYTES:
                image.verify()
                return Frame(images, _uri("png", data), *image.size)
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    small.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=_QUALITY)
    return Frame(images, _uri("jpeg", stream.getvalue()), *small.size)


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
