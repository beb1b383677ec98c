"""Holes in real images, to judge by what fills them; chosen by hash."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from calotype.data.resize import area_resize
from calotype.emoji.captions import BACKGROUND_COLOURS, on_background
from calotype.emoji.gallery import Gallery, keys_at, over_background, read_images
from calotype.emoji.prompts import ImageRow
from calotype.evaluation.retrieval import concept_rank, thumbnails

_MOST_OF_IT = 0.9  # a thing that takes more of its image leaves no ground
Judge = Callable[[Tensor, int], int]
"""`(what was made, number of the hole)` -> how many images of other concepts are nearer to it."""


@dataclass(frozen=True)
class Hole:
    """An image, what of it is kept, and what is asked for.

    Args:
        image: the source, (3, H, W) in [-1, 1].
        keep: True = kept, (1, H, W) bool.
        caption: of the result.
        wanted: a real image of what is asked for, like `image`.
    """

    image: Tensor
    keep: Tensor
    caption: str
    wanted: Tensor


def half_hidden(gallery: Gallery, count: int) -> list[Hole]:
    """Unseen pairs with their own captions, of which one half is hidden."""
    holes = []
    for row in gallery.sample("unseen_pair", count):
        image = gallery.real(row.key)
        keep = torch.ones(1, *image.shape[1:], dtype=torch.bool)
        axis, first = 1 + _number(row, 2), bool(_number(row, 4) // 2)
        keep.narrow(axis, 0 if first else keep.shape[axis] // 2, keep.shape[axis] // 2).fill_(False)
        holes.append(Hole(image, keep, row.caption, image))
    return holes


def another_thing(gallery: Gallery, count: int) -> tuple[list[Hole], Judge]:
    """Trained pairs on a colour, hidden by a box; another trained pair is asked for.

    Returns the holes, and what says how many images of other concepts are nearer to the result,
    inside the hole alone.
    """
    holes, asked = list[Hole](), list[tuple[ImageRow, str]]()
    rows = gallery.sample("train", len(gallery.rows))
    for row, other in itertools.pairwise(rows):
        keep = _box_round(gallery.images[gallery.places[row.key], 3] > 0)
        colour = sorted(BACKGROUND_COLOURS)[_number(row, len(BACKGROUND_COLOURS))]
        if len(holes) < count and keep.float().mean() > 1 - _MOST_OF_IT:
            image = gallery.real(row.key, BACKGROUND_COLOURS[colour])
            wanted = gallery.real(other.key, BACKGROUND_COLOURS[colour])
            holes.append(Hole(image, keep, on_background(other.caption, colour), wanted))
            asked.append((other, colour))

    def rank(made: Tensor, number: int) -> int:
        row, colour = asked[number]
        pool = gallery.pool(row, BACKGROUND_COLOURS[colour])
        side = int(pool.images.shape[-1])
        hidden = area_resize((~holes[number].keep).float()[None], side)
        sample = thumbnails(made[None], side)[0] * hidden[0]
        return concept_rank(sample, pool.images * hidden, pool.concepts, concept=row.concept)

    return holes, rank


def box_hidden(gallery: Gallery, data: Path, resolution: int, count: int) -> list[Hole]:
    """Trained and unseen pairs at full resolution, in turn, with a quarter hidden by a box."""
    present = keys_at(data, resolution)
    groups = [
        [row for row in gallery.sample(split, len(gallery.rows)) if row.key in present]
        for split in ("train", "unseen_pair")
    ]
    rows = {row.key: row for pair in zip(*groups, strict=False) for row in pair}
    rows = dict(itertools.islice(rows.items(), count))
    holes = []
    for key, rgba in read_images(data, set(rows), resolution):
        keep = torch.ones(1, resolution, resolution, dtype=torch.bool)
        half = resolution // 2
        top, left = divmod(_number(rows[key], (half + 1) ** 2), half + 1)
        keep[:, top : top + half, left : left + half] = False
        image = over_background(rgba)
        holes.append(Hole(image, keep, rows[key].caption, image))
    return holes


def _box_round(shown: Tensor) -> Tensor:
    """All but a box round what is shown, (H, W), wider by a thirty-second; (1, H, W)."""
    keep, margin = torch.ones(1, *shown.shape, dtype=torch.bool), max(shown.shape) // 32
    places = shown.nonzero()
    if len(places) > 0:
        (top, left), (bottom, right) = places.amin(0).tolist(), places.amax(0).tolist()
        rows = slice(max(0, top - margin), bottom + 1 + margin)
        keep[:, rows, max(0, left - margin) : right + 1 + margin] = False
    return keep


def _number(row: ImageRow, below: int) -> int:
    """A number from 0 that a hash of the key decides."""
    return int.from_bytes(sha256(f"editing {row.key}".encode()).digest()[:8], "big") % below
