"""Shards of sample sets on disk: which rows they have, and what is noted in them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from calotype.data.columns import pyarrow
from calotype.data.shard_file import NOTE_KEY, read_note, write_shard_file

SHARD_IMAGES = 64
"""Of a shard: what is lost of work that is killed."""

_GROUP_BYTES = 4_000_000
"""Of images in a row group, about: what is read for one image."""

ENCODINGS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp", b"GIF8": "gif"}


@dataclass(frozen=True)
class Sample:
    """A row of a set without its image.

    Args:
        key: unique in the set.
        caption: that was asked for.
        prompt: the id of the prompt in its suite.
        category: of the prompt.
        index: which of the prompt's images this is, from 0.
        seed: of the image; None where it is not known.
    """

    key: str
    caption: str
    prompt: str
    category: str | None
    index: int
    seed: int | None


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard of a set lies."""
    return folder / f"{number:05d}.parquet"


def write_sample_shard(
    path: Path, samples: Sequence[Sample], images: Sequence[bytes], note: Mapping[str, Any]
) -> None:
    """Write encoded images and what they are of; the columns are those that training reads, too.

    Raises:
        CalotypeError: the disk is full, or the folder cannot be written to.
    """
    pa = pyarrow()
    rows = [
        {"image": {"bytes": image, "path": None}, **asdict(sample)}
        for sample, image in zip(samples, images, strict=True)
    ]
    for row in rows:
        row["prompt_id"] = row.pop("prompt")
    table = pa.Table.from_pylist(rows, schema=schema())
    table = table.replace_schema_metadata({NOTE_KEY: json.dumps(dict(note))})
    mean_bytes = max(1, sum(map(len, images)) // max(1, len(images)))
    write_shard_file(
        path,
        table,
        row_group_size=max(1, _GROUP_BYTES // mean_bytes),
        use_dictionary=False,
        compression="none",
    )


def schema() -> Any:
    """The columns of a shard."""
    pa = pyarrow()
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    texts = [(name, pa.string()) for name in ("key", "caption", "prompt_id", "category")]
    return pa.schema([("image", image), *texts, ("index", pa.int32()), ("seed", pa.int64())])


def shard_note(path: Path, made_of: str) -> dict[str, Any] | None:
    """The note of a shard that is there and was made of the same things; None if it is not."""
    note = read_note(path)
    return note if note is not None and note.get("made_of") == made_of else None


def encoding_of(data: bytes) -> str:
    """The kind of an image file, by its first bytes."""
    return next((name for start, name in ENCODINGS.items() if data.startswith(start)), "other")
