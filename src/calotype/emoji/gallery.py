"""The real images that samples are judged by: all rows of a set's shards, made small."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calotype.data.columns import pyarrow
from calotype.data.images import BrokenImage, decode_image
from calotype.data.open import parquet_files
from calotype.data.resize import area_resize, fit_image
from calotype.emoji.prompts import EvaluationPrompt, ImageRow, choose_prompts, load_prompts
from calotype.errors import UsageError
from calotype.evaluation.retrieval import THUMBNAIL_SIDE, thumbnails

Colour = tuple[int, int, int]
_COLUMNS = ("key", "name", "style", "set", "license", "concept", "split", "keywords", "group")


@dataclass(frozen=True)
class Pool:
    """Thumbnails, (N, 3, s, s) in [-1, 1], and the concepts they show."""

    images: Tensor
    concepts: tuple[str, ...]


@dataclass(frozen=True)
class Gallery:
    """All images of a set, (N, 4, S, S) uint8: RGBA with colours premultiplied by alpha."""

    rows: tuple[ImageRow, ...]
    images: Tensor

    @cached_property
    def places(self) -> dict[str, int]:
        """Row number by key."""
        return {row.key: number for number, row in enumerate(self.rows)}

    @cached_property
    def _thumbnails(self) -> Tensor:
        side = min(THUMBNAIL_SIDE, self.images.shape[-1])
        parts = [
            # A part at a time: all in float32 would take four times the memory.
            thumbnails(self.images[start : start + 256].float() / 255, side)
            for start in range(0, len(self.images), 256)
        ]
        return torch.cat(parts)

    def numbers(self, row: ImageRow) -> list[int]:
        """The rows among which `row` is looked up; `retrieval` says why the split decides."""
        splits = {"train"} if row.split == "train" else {"train", "unseen_pair", "unseen_concept"}
        return [
            number
            for number, other in enumerate(self.rows)
            if other.style == row.style and other.split in splits
        ]

    def pool(self, row: ImageRow, background: Colour | None = None) -> Pool:
        """Their thumbnails, over a colour (white)."""
        chosen = self.numbers(row)
        concepts = tuple(self.rows[number].concept for number in chosen)
        return Pool(over_background(self._thumbnails[chosen], background), concepts)

    def real(self, key: str, background: Colour | None = None) -> Tensor:
        """One image, (3, S, S) in [-1, 1]."""
        return over_background(self.images[self.places[key]].float() / 255, background)

    def sample(self, split: str, count: int) -> list[ImageRow]:
        """`count` rows of a split (or all), chosen by hash of the key."""
        return in_hash_order(row for row in self.rows if row.split == split)[:count]


def in_hash_order(rows: Iterable[ImageRow]) -> list[ImageRow]:
    """Rows in the order of a hash of their keys, so that any number of them is a fair choice."""
    return sorted(rows, key=lambda row: sha256(f"evaluation {row.key}".encode()).digest())


@dataclass(frozen=True)
class PromptSuite:
    """Prompts to sample, and whether they are the ones installed with the package."""

    prompts: tuple[EvaluationPrompt, ...]
    installed: bool


def prompts_for(gallery: Gallery) -> PromptSuite:
    """The installed prompts if the set has all their images, else some chosen the same way."""
    installed = load_prompts()
    if all(prompt.key in gallery.places for prompt in installed):
        return PromptSuite(tuple(installed), True)
    return PromptSuite(tuple(choose_prompts(gallery.rows)), False)


def over_background(rgba: Tensor, background: Colour | None = None) -> Tensor:
    """Premultiplied RGBA, (..., 4, H, W) in [0, 1], over a colour (white).

    The images are (..., 3, H, W) in [-1, 1].
    """
    colour = torch.tensor((255, 255, 255) if background is None else background) / 255
    alpha = rgba[..., 3:, :, :]
    return (rgba[..., :3, :, :] + (1 - alpha) * colour[:, None, None]) * 2 - 1


def read_gallery(data: Path, side: int) -> Gallery:
    """Read all images of a set, `side` pixels wide: 64 makes 110 MB of the default set.

    Raises:
        UsageError: there are no such shards.
        MissingExtra: pyarrow is not installed.
    """
    rows: list[ImageRow] = []
    files = _shards(data, 1)
    count = sum(_parquet(file).metadata.num_rows for file in files)
    images = torch.empty((count, 4, side, side), dtype=torch.uint8)
    for file in files:
        for group in _row_groups(file, (*_COLUMNS, "image")):
            for values in group.to_pylist():
                image = _premultiplied(values.pop("image")["bytes"], side)
                if image is not None:
                    images[len(rows)] = (image * 255).round()
                    rows.append(_row(values))
    if not rows:
        raise UsageError(f"got no images in {data}; make them with: calotype data emoji")
    return Gallery(tuple(rows), images[: len(rows)])


def read_rows(data: Path, side: int = 1) -> list[ImageRow]:
    """What a set's images are, without reading them; `side` as in `read_images`.

    Raises:
        UsageError: there are no such shards.
    """
    groups = (group for file in _shards(data, side) for group in _row_groups(file, _COLUMNS))
    return [_row(values) for group in groups for values in group.to_pylist()]


def read_images(data: Path, keys: Collection[str], side: int) -> Iterator[tuple[str, Tensor]]:
    """Keys and premultiplied RGBA, (4, side, side) in [0, 1], of some images, in the shards' order.

    Those that are not `side` wide are passed over.
    """
    for file in _shards(data, side):
        for number, group in enumerate(_row_groups(file, ("key",))):
            wanted = [i for i, key in enumerate(group["key"].to_pylist()) if key in keys]
            if wanted:
                images = _parquet(file).read_row_group(number, columns=["key", "image"])
                for values in images.take(wanted).to_pylist():
                    image = _premultiplied(values["image"]["bytes"], side)
                    if image is not None:
                        yield values["key"], image


def keys_at(data: Path, side: int) -> set[str]:
    """Keys of the images in shards whose images are at least `side` wide (by their first)."""
    found: set[str] = set()
    for file in _shards(data, side):
        first = next(_row_groups(file, ("image",)), None)
        if first is None or _premultiplied(first["image"][0].as_py()["bytes"], side) is None:
            continue
        for group in _row_groups(file, ("key",)):
            found.update(group["key"].to_pylist())
    return found


def _row(values: dict[str, Any]) -> ImageRow:
    return ImageRow(**values | {"keywords": tuple(values["keywords"] or ())})


def _premultiplied(data: bytes, side: int) -> Tensor | None:
    """The image, `side` wide; None if it is broken, or smaller than that."""
    try:
        image: NDArray[np.uint8] = decode_image(data)
    except BrokenImage:
        return None  # the data card lists them
    square = min(image.shape[:2])
    if square < side:
        return None
    rgba = torch.from_numpy(fit_image(image, square)).permute(2, 0, 1).float() / 255
    rgba = torch.cat((rgba[:3] * rgba[3:], rgba[3:]))
    return area_resize(rgba[None], side)[0].clamp(0, 1)


def _shards(data: Path, side: int) -> list[Path]:
    if not data.exists():
        raise UsageError(f"got data {data}, which does not exist; expected the emoji set's folder")
    files = parquet_files(data, side)
    if not files:
        raise UsageError(f"got no Parquet shards in {data}; make them with: calotype data emoji")
    return files


def _row_groups(file: Path, columns: Iterable[str]) -> Iterator[Any]:
    shard = _parquet(file)
    missing = sorted(set(columns) - set(shard.schema_arrow.names))
    if missing:
        raise UsageError(
            f"{file} lacks the column {missing[0]!r}; expected shards of: calotype data emoji"
        )
    for number in range(shard.metadata.num_row_groups):
        yield shard.read_row_group(number, columns=list(columns))


def _parquet(file: Path) -> Any:
    parquet = pyarrow().parquet
    try:
        return parquet.ParquetFile(file)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"cannot read {file} as Parquet: {reason}; make it again") from error
