"""A sample set made of another: some of its samples, or all of them encoded in another way."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from calotype.data.images import decode_image
from calotype.errors import UsageError
from calotype.evaluation.samples.encoded import Encoded, write_encoded
from calotype.evaluation.samples.manifest import Manifest, write_manifest
from calotype.evaluation.samples.prompts import write_prompts
from calotype.evaluation.samples.sample_set import SampleSet
from calotype.evaluation.samples.shard import Sample


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
    parts = [hashes, [sample.key for _, sample in rows], dict(note)]
    made_of = sha256(json.dumps(parts).encode()).hexdigest()
    write_prompts(folder, samples.suite)

    def read(number: int, sample: Sample) -> Encoded:
        data = samples.encoded(number)
        data = data if recode is None else recode(sample, data)
        height, width = decode_image(data).shape[:2]
        return data, (height, width)

    origin = {**(samples.manifest.origin or {}), "derived": dict(note)}
    facts = write_encoded(folder, rows, read, made_of, replaces=True)
    manifest = replace(samples.manifest, origin=origin, **facts)
    write_manifest(folder, manifest)
    return manifest
