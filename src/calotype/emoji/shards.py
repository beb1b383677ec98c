"""Write images with their captions' parts as Parquet, in Hugging Face's image layout."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.data.columns import pyarrow
from calotype.data.shard_file import NOTE_KEY, read_note, write_shard_file
from calotype.emoji.plan import PlannedImage
from calotype.emoji.render import RENDER_VERSION
from calotype.errors import CalotypeError

_TEXT_COLUMNS = ("group", "style", "set", "license", "concept", "split")
_LEAVES = ("key", "image.bytes", "image.path", "name", "keywords.list.element", *_TEXT_COLUMNS)
# Rows of a shard and of a row group: a reader that wants one image decodes a row group.
ROWS_PER_SHARD = {256: 512, 1024: 128}
ROWS_PER_GROUP = {256: 64, 1024: 8}


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be: where, which images, and a hash of all that decides its bytes."""

    path: Path
    size: int
    images: tuple[PlannedImage, ...]

    @property
    def fingerprint(self) -> str:
        """sha256 over the rows, their artwork, the size and the renderer's version."""
        digest = hashlib.sha256(f"{RENDER_VERSION} {self.size}".encode())
        for image in self.images:
            parts = [str(v) for k, v in sorted(vars(image).items()) if k != "artwork"]
            digest.update("\x1f".join(parts).encode() + image.artwork.data)
        return digest.hexdigest()


def plan_shards(
    folder: Path, name: str, images: Sequence[PlannedImage], *, size: int
) -> list[ShardPlan]:
    """Cut a set into shards `folder/size/name-00000.parquet`, ..."""
    step = ROWS_PER_SHARD[size]
    return [
        ShardPlan(
            folder / str(size) / f"{name}-{i // step:05d}.parquet",
            size,
            tuple(images[i : i + step]),
        )
        for i in range(0, len(images), step)
    ]


def broken_in(plan: ShardPlan) -> list[str] | None:
    """Keys that could not be rendered; None unless the shard is there, made from the same plan."""
    note = read_note(plan.path)
    if note is None or note.get("fingerprint") != plan.fingerprint:
        return None
    return list(note["broken"])


def is_shard(path: Path) -> bool:
    """Whether a file is a shard of an emoji data set, of whatever build."""
    note = read_note(path)
    return note is not None and {"fingerprint", "broken", "size"} <= note.keys()


def read_columns(path: Path, columns: list[str]) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Columns of a shard as lists, and the note its writer left in it.

    Raises:
        CalotypeError: the file is no shard of this recipe.
    """
    parquet = pyarrow().parquet
    try:
        table = parquet.read_table(path, columns=columns)
        return table.to_pydict(), json.loads(table.schema.metadata[NOTE_KEY])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CalotypeError(f"{path} is not a shard of the emoji recipe; move it away") from error


def write_shard(plan: ShardPlan, images: Sequence[bytes | None]) -> None:
    """Write one shard; `images` are PNG bytes in the plan's order, None for a broken one.

    The file appears under its name only when it is whole.

    Raises:
        CalotypeError: it cannot be written.
    """
    rows = [(p, png) for p, png in zip(plan.images, images, strict=True) if png is not None]
    broken = [p.key for p, png in zip(plan.images, images, strict=True) if png is None]
    note = json.dumps({"fingerprint": plan.fingerprint, "broken": broken, "size": plan.size})
    write_shard_file(
        plan.path,
        _table(rows, note),
        row_group_size=ROWS_PER_GROUP[plan.size],
        compression={leaf: "NONE" if leaf.startswith("image.") else "ZSTD" for leaf in _LEAVES},
        use_dictionary=list(_TEXT_COLUMNS),
        write_statistics=list(_TEXT_COLUMNS),
    )


def _table(rows: list[tuple[PlannedImage, bytes]], note: str) -> Any:
    import pyarrow as pa

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = [("key", pa.string()), ("image", image), ("name", pa.string())]
    columns += [("keywords", pa.list_(pa.string()))]
    columns += [(name, pa.string()) for name in _TEXT_COLUMNS]
    string = {"dtype": "string", "_type": "Value"}
    features: dict[str, Any] = {name: string for name, _ in columns}
    features |= {"image": {"_type": "Image"}, "keywords": {"feature": string, "_type": "Sequence"}}
    metadata = {
        b"huggingface": json.dumps({"info": {"features": features}}).encode(),
        NOTE_KEY: note.encode(),
    }
    values = [
        {
            **{name: getattr(p, name) for name in ("key", "name", *_TEXT_COLUMNS)},
            "keywords": list(p.keywords),
            "image": {"bytes": png, "path": p.key.replace("/", "-") + ".png"},
        }
        for p, png in rows
    ]
    return pa.Table.from_pylist(values, schema=pa.schema(columns, metadata=metadata))
