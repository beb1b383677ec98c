"""Sheets of samples, in the order of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calotype.pages.images import PageImage, page_image
from calotype.storage.reading import read_regular
from calotype.training.record import RunRecord

MOST_FRAMES = 24
"""Sheets of a stage that are shown: evenly chosen, the first and the last among them."""
_MOST_BYTES = 2**30
_KEPT_BYTES = 200_000
_LARGEST_SIDE = 1400
_SHOWN_WIDTH = 1100


@dataclass(frozen=True)
class Frame:
    """A sheet of samples, and how many images were seen when it was made."""

    images: int
    sheet: PageImage

    @property
    def scale(self) -> int:
        """How many times its size it is shown at: samples of a few pixels are hard to see."""
        return max(1, min(8, _SHOWN_WIDTH // self.sheet.width))


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
    frames: list[Frame]
    count: int
    captions: list[str]


def films(run: RunRecord) -> list[Film]:
    """The samples of each stage that has any."""
    found, previous = [], 0.0
    for size, part in run.segments:
        last = part.stop == len(run.steps["images"])
        end = float("inf") if last else float(run.steps["images"][part.stop - 1])
        sheets = [(seen, path) for seen, path in run.grids.items() if previous < seen <= end]
        chosen = np.unique(np.linspace(0, len(sheets) - 1, min(len(sheets), MOST_FRAMES)).round())
        frames = [_frame(*sheets[int(place)]) for place in chosen]
        shown = [frame for frame in frames if frame is not None]
        if shown:
            found.append(Film(f"{size} pixels", shown, len(sheets), _captions(run, size)))
        previous = end
    return found


def _captions(run: RunRecord, size: int) -> list[str]:
    for stage in run.stages:
        config, captions = stage.get("stage"), stage.get("grid_captions")
        if isinstance(config, dict) and config.get("resolution") == size:
            if config.get("lowres_resolution") is None and isinstance(captions, list):
                return [str(caption) for caption in captions]
    return []


def _frame(images: int, path: Path) -> Frame | None:
    try:
        data = read_regular(path, most_bytes=_MOST_BYTES)
    except (OSError, ValueError):
        return None
    image = page_image(data, kept_bytes=_KEPT_BYTES, side=_LARGEST_SIDE)
    return None if image is None else Frame(images, image)
