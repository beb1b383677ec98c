"""What every image looks like, in 24 bytes on disk, and which of them look the same.

Records go to files by a hash of the look, so that equal ones meet in one file; a file at a time
is then sorted. Memory does not grow with the set: a file is about `BUCKET_BYTES`, unless much of
the set is one and the same image.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calotype.errors import MissingExtra

RECORD = np.dtype([("shape", "<u8"), ("colour", "<u8"), ("index", "<i8")])
"""Perceptual hash, colour hash, number of the example."""

BUCKET_BYTES = 64_000_000
_MOST_BUCKETS = 512  # files open at a time
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads neighbouring hashes
_HASH_SIDE = 128


@dataclass(frozen=True)
class Duplicates:
    """Images that look the same.

    Args:
        repeated: all but the first of every group.
        groups: numbers of examples, rising, the groups in the order of their first; cut to the
            most that was asked for.
    """

    repeated: int
    groups: tuple[tuple[int, ...], ...]


def looks(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Perceptual hash (DCT of the brightness) and colour hash: equal ones look the same.

    The perceptual hash alone takes a red heart and a blue one for the same.

    Args:
        image: (H, W, 4) straight-alpha RGBA.

    Returns:
        64 bits, and 42 bits.
    """
    hashes = imagehash()
    small = Image.fromarray(image).resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.BOX)
    white = Image.new("RGBA", small.size, "white")
    small = Image.alpha_composite(white, small).convert("RGB")
    return int(str(hashes.phash(small)), 16), int(str(hashes.colorhash(small)), 16)


class LookBook(contextlib.ExitStack):
    """Collects looks in temporary files (TMPDIR), which go when the `with` block ends."""

    def __init__(self, length: int, *, bucket_bytes: int = BUCKET_BYTES) -> None:
        """Make the files; `length` is the count of images, about."""
        wanted = -(-length * RECORD.itemsize // bucket_bytes)
        self.buckets = max(1, min(_MOST_BUCKETS, wanted))
        super().__init__()
        folder = self.enter_context(tempfile.TemporaryDirectory(prefix="calotype-looks-"))
        self._paths = [Path(folder, str(number)) for number in range(self.buckets)]
        self._files = [self.enter_context(path.open("wb")) for path in self._paths]

    def add(self, records: NDArray[np.void]) -> None:
        """Write down `RECORD`s."""
        mixed = (records["shape"] * _MIX) ^ (records["colour"] + _MIX) * _MIX
        places = (mixed >> np.uint64(32)) % np.uint64(self.buckets)
        for number in np.unique(places).tolist():
            self._files[number].write(records[places == number].tobytes())

    def duplicates(self, most: int) -> Duplicates:
        """Find what looks the same; names at most `most` images, those of the first groups."""
        repeated, groups = 0, list[tuple[int, ...]]()
        for path, file in zip(self._paths, self._files, strict=True):
            file.flush()
            for group in _groups(np.fromfile(path, RECORD)):
                repeated += len(group) - 1
                groups.append(tuple(group[:most].tolist()))
                if len(groups) > 2 * most:
                    groups = _first(groups, most)
        return Duplicates(repeated, tuple(_first(groups, most)))


def _groups(records: NDArray[np.void]) -> Iterator[NDArray[np.int64]]:
    """Numbers of examples with equal looks, rising, of every group of two or more."""
    order = np.lexsort((records["index"], records["colour"], records["shape"]))
    records = records[order]
    alike = records[1:][["shape", "colour"]] == records[:-1][["shape", "colour"]]
    starts = np.flatnonzero(np.concatenate([[True], ~alike])) if len(records) else np.zeros(0, int)
    ends = np.append(starts[1:], len(records))
    for place in np.flatnonzero(ends - starts > 1).tolist():
        yield records["index"][starts[place] : ends[place]]


def _first(groups: list[tuple[int, ...]], most: int) -> list[tuple[int, ...]]:
    """The first groups, cut where they name more than `most` images."""
    kept = []
    for group in sorted(groups):
        if most < 2:
            break
        kept.append(group[:most])
        most -= len(kept[-1])
    return kept


@functools.cache
def imagehash() -> Any:
    """The package.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module("imagehash")
    except ImportError as error:
        raise MissingExtra("data", "imagehash") from error
