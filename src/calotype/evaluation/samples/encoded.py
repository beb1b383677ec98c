"""Encoded images become the shards of a sample set, whether other programs made them or a set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

from calotype.data.shard_file import read_note
from calotype.errors import UsageError
from calotype.evaluation.samples.manifest import ShardNote
from calotype.evaluation.samples.shard import (
    SHARD_IMAGES,
    Sample,
    encoding_of,
    shard_note,
    shard_path,
    write_sample_shard,
)
from calotype.storage.reading import file_sha256

T = TypeVar("T")
Encoded = tuple[bytes, tuple[int, int]]
"""An image's file, and its height and width."""


def write_encoded(
    folder: Path,
    rows: Sequence[tuple[int, Sample]],
    read: Callable[[int, Sample], Encoded],
    made_of: str,
    *,
    replaces: bool = False,
) -> dict[str, Any]:
    """Write the shards of a set that are not there already.

    Args:
        folder: of the set.
        rows: of it, each with the number of its image.
        read: gives a row's image by that number.
        made_of: one name for all that decides the images.
        replaces: shards of another set, too; otherwise they are refused.

    Returns:
        What the manifest says of them: count, each, size, encoding and shards.

    Raises:
        UsageError: `folder` holds other files of such names.
    """
    shards, sizes, encodings = [], set[tuple[int, int]](), set[str]()
    for first in range(0, len(rows), SHARD_IMAGES):
        path, part = shard_path(folder, first // SHARD_IMAGES), rows[first : first + SHARD_IMAGES]
        note = shard_note(path, made_of)
        if note is None:
            if path.exists() and not (replaces and read_note(path) is not None):
                raise UsageError(
                    f"{path} holds other samples, or is none of ours; choose another folder with "
                    "-o, or move it away"
                )
            note = _write(path, part, read, made_of)
        sizes.update((height, width) for height, width in note["sizes"])
        encodings.update(note["encodings"])
        shards.append(ShardNote(file=path.name, rows=len(part), sha256=file_sha256(path)))
    return {
        "count": len(rows),
        "each": _only(set(Counter(sample.prompt for _, sample in rows).values())),
        "size": _only(sizes),
        "encoding": _only(encodings) or "mixed",
        "shards": tuple(shards),
    }


def _write(
    path: Path,
    rows: Sequence[tuple[int, Sample]],
    read: Callable[[int, Sample], Encoded],
    made_of: str,
) -> dict[str, Any]:
    """Write one shard; its note."""
    images = [read(number, sample) for number, sample in rows]
    note = {
        "made_of": made_of,
        "sizes": sorted({size for _, size in images}),
        "encodings": sorted({encoding_of(data) for data, _ in images}),
    }
    write_sample_shard(path, [sample for _, sample in rows], [data for data, _ in images], note)
    return note


def _only(values: Collection[T]) -> T | None:
    """The value, if there is but one."""
    return next(iter(values)) if len(values) == 1 else None
