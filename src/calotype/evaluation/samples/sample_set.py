"""A sample set, opened: its rows in memory, its images read as they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from calotype.data.columns import READ_ERRORS, Selection, pyarrow, reason_of
from calotype.data.images import decode_image
from calotype.data.parquet import IN_ORDER_CACHE_BYTES, ParquetSource
from calotype.data.resize import fit_image
from calotype.data.source import EncodedSource
from calotype.errors import UsageError
from calotype.evaluation.samples.manifest import MANIFEST_FILE, Manifest, read_manifest
from calotype.evaluation.samples.prompts import PROMPTS_FILE, read_prompts
from calotype.evaluation.samples.shard import Sample
from calotype.evaluation.suites.suite import Suite

EVERYTHING = Selection(split=None)


class SampleSet:
    """Images in Parquet shards, and the manifest that says what they are.

    Args:
        folder: that holds both.
        manifest: what `read_manifest` found there.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self.files = [folder / shard.file for shard in manifest.shards]

    def __len__(self) -> int:
        return self.manifest.count

    @cached_property
    def samples(self) -> Sequence[Sample]:
        """All rows, in the order of the shards."""
        rows: list[Sample] = []
        columns = ["key", "caption", "prompt_id", "category", "index", "seed"]
        for file in self.files:
            try:
                table = pyarrow().parquet.read_table(file, columns=columns)
                found = zip(*(table[name].to_pylist() for name in columns), strict=True)
                rows += [Sample(*values) for values in found]
            except READ_ERRORS as error:
                raise UsageError(
                    f"cannot read {file}: {reason_of(error)}; sample it again, or get another copy"
                ) from error
        if len(rows) != len(self):
            raise UsageError(
                f"got {len(rows)} rows in {self.folder}; expected the {len(self)} of its manifest"
            )
        return rows

    @cached_property
    def suite(self) -> Suite:
        """Whose prompts the samples are of, with all of its prompts."""
        noted, prompts = self.manifest.suite, read_prompts(self.folder / PROMPTS_FILE)
        return Suite(noted.name, tuple(prompts), noted.sha256, noted.choices)

    @cached_property
    def source(self) -> EncodedSource:
        """The images, as work over data takes them."""
        return ParquetSource(self.folder, self.files, EVERYTHING, cache_bytes=IN_ORDER_CACHE_BYTES)

    def encoded(self, number: int) -> bytes:
        """The file of an image, as it was written."""
        return self.source.image_bytes(number)

    def pixels(self, numbers: Sequence[int], side: int | None = None) -> Tensor:
        """Images, (N, 3, side, side) uint8 on white: see `square_pixels`."""
        return torch.stack([square_pixels(self.encoded(number), side) for number in numbers])


def square_pixels(data: bytes, side: int | None = None) -> Tensor:
    """An encoded image, (3, side, side) uint8: the centre square, area-averaged, on white.

    `side` None keeps the square's own size. Enlarging is bicubic.

    Raises:
        BrokenImage: it cannot be decoded.
    """
    rgba = decode_image(data)
    square = fit_image(rgba, side or min(rgba.shape[:2]))
    fitted = torch.from_numpy(np.require(square, requirements="W")).permute(2, 0, 1)
    if bool((fitted[3] == 255).all()):
        return fitted[:3].contiguous()
    alpha = fitted[3:].float() / 255
    return (fitted[:3] * alpha + 255 * (1 - alpha)).round().to(torch.uint8)


def is_sample_set(path: Path) -> bool:
    """Whether a folder holds a sample set, or an evaluation with one."""
    return any((path / inside / MANIFEST_FILE).is_file() for inside in ("", "samples"))


def open_samples(folder: Path) -> SampleSet:
    """The sample set in a folder, or in the folder `samples` of an evaluation.

    Raises:
        UsageError: there is none.
        ConfigError: its manifest is damaged.
    """
    inside = folder / "samples"
    folder = inside if inside.is_dir() else folder
    manifest = read_manifest(folder)
    for shard in manifest.shards:
        if not (folder / shard.file).is_file():
            raise UsageError(f"{folder / shard.file} is gone; sample it again, or get a copy")
    return SampleSet(folder, manifest)
