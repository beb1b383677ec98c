"""A sample set made of another: some of its samples, or all of them encoded in another way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from calotype.data.images import decode_image
from calotype.data.shard_file import read_note
from calotype.errors import UsageError
from calotype.evaluation.samples.manifest import Manifest, ShardNote, write_manifest
from calotype.evaluation.samples.prompts import write_prompts
from calotype.evaluation.samples.sample_set import SampleSet
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


def derive(
    samples: SampleSet,
    folder: Path,
    *,
    keep: Collection[tuple[str, int]] | None,
    recode: Callable[[Sample, bytes], bytes] | None,
    note: Mapping[str, Any],
) -> Manifest:
    """Write the set; shards that are there already are kept, and those of another set replaced.

    Args:
        samples: of which it is made.
        folder: of the new set.
        keep: prompt ids and numbers of images that are kept; None = all.
        recode: a sample's file as it is to be; None = as it is.
        note: in words, what was done; equal notes are equal work.

    Raises:
        UsageError: `folder` holds other files of such names, or nothing is left.
    """
    rows = list(enumerate(samples.samples))
    if keep is not None:
        rows = [(n, sample) for n, sample in rows if (sample.prompt, sample.index) in keep]
    if not rows:
        raise UsageError(f"nothing is left of {samples.folder}; expected samples to keep")
    hashes = [shard.sha256 for shard in samples.manifest.shards]
    made_of = _digest([hashes, [sample.key for _, sample in rows], dict(note)])
    write_prompts(folder, samples.suite)
    shards, sizes, encodings = [], set[tuple[int, int]](), set[str]()
    for first in range(0, len(rows), SHARD_IMAGES):
        path, part = shard_path(folder, first // SHARD_IMAGES), rows[first : first + SHARD_IMAGES]
        known = shard_note(path, made_of)
        if known is None:
            if path.exists() and read_note(path) is None:
                raise UsageError(f"{path} is none of ours; choose another output, or move it away")
            known = _write(path, samples, part, recode, made_of)
        sizes.update((height, width) for height, width in known["sizes"])
        encodings.update(known["encodings"])
        shards.append(ShardNote(file=path.name, rows=len(part), sha256=file_sha256(path)))
    manifest = replace(
        samples.manifest,
        count=len(rows),
        each=_only(set(Counter(sample.prompt for _, sample in rows).values())),
        size=_only(sizes),
        encoding=_only(encodings) or "mixed",
        shards=tuple(shards),
        origin={**(samples.manifest.origin or {}), "derived": dict(note)},
    )
    write_manifest(folder, manifest)
    return manifest


def _write(
    path: Path,
    samples: SampleSet,
    rows: Sequence[tuple[int, Sample]],
    recode: Callable[[Sample, bytes], bytes] | None,
    made_of: str,
) -> dict[str, Any]:
    """Write one shard; its note."""
    files = [samples.encoded(number) for number, _ in rows]
    if recode is not None:
        files = [recode(sample, data) for (_, sample), data in zip(rows, files, strict=True)]
    note = {
        "made_of": made_of,
        "sizes": sorted({decode_image(data).shape[:2] for data in files}),
        "encodings": sorted({encoding_of(data) for data in files}),
    }
    write_sample_shard(path, [sample for _, sample in rows], files, note)
    return note


def _digest(parts: Sequence[Any]) -> str:
    return sha256(json.dumps(parts).encode()).hexdigest()


def _only(values: set[T]) -> T | None:
    """The value, if there is but one."""
    return next(iter(values)) if len(values) == 1 else None
