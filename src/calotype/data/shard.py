"""Convert any data to Parquet shards: images as they are, captions, keys, labels if asked for.

A shard is a fixed range of examples, written under its name when it is whole and skipped when it
is there already, so that the work can be interrupted, repeated and shared.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.data.columns import IMAGE_COLUMNS, TEXT_COLUMNS, Selection, pyarrow
from calotype.data.grammar import CaptionGrammar
from calotype.data.images import BrokenImage, decode_image
from calotype.data.labels import label_of
from calotype.data.open import parts
from calotype.data.shard_file import (
    NOTE_KEY,
    read_note,
    write_shard_file,
)
from calotype.data.source import EncodedSource
from calotype.data.work import Chunk, Chunks, Work, open_for_work, source_of
from calotype.errors import UsageError
from calotype.storage.files import remove_leftovers

GROUP_BYTES = 2_000_000
"""Bytes of images in a row group, about: what is read for one image."""

SPLIT = "train"
"""Examples set aside for evaluation stay where they are: what comes out is all trained on."""

_VERSION = 1


@dataclass(frozen=True)
class ShardResult:
    """One shard: how many rows it has, and what was left out."""

    path: Path
    rows: int
    broken: dict[str, str]
    skipped: bool = False


def shard_data(
    path: Path,
    out: Path,
    *,
    rows: int = 2048,
    labels: str | None = None,
    grammar: CaptionGrammar | None = None,
    work: Work | None = None,
) -> list[ShardResult]:
    """Convert the data at `path` to shards `out/00000.parquet`, ...

    Of data with splits, only "train" is taken, and only captions without a background. Data with
    shards by size become `out/256/00000.parquet` and so on.

    Args:
        path: anything that `open_source` takes.
        out: folder of the shards; must not be the source.
        rows: examples of a shard; broken ones are left out, and named in the result.
        labels: what says which class an image is of, as `DataConfig.labels`; the shards say it in
            a column of that name. Tables need no captions then.
        grammar: as `open_source` takes it.
        work: who does it, and hears of each `ShardResult`.

    Raises:
        UsageError: the arguments do not fit, an image has no label where they are asked for, or
            shards of something else lie in `out`.
        CalotypeError: a shard cannot be written.
    """
    if out.resolve() == path.resolve():
        raise UsageError(f"got {out} as both source and target; expected another folder for shards")
    _check_settings(rows, labels)
    pyarrow()
    selection = Selection(SPLIT, grammar=grammar, captioned=labels is None, labels=labels)
    shards = {
        out.resolve() / part: Chunks(open_for_work(path, part, selection), rows)
        for part in parts(path)
    }
    expected = {
        _shard_path(folder, chunk, rows): _origin(chunk)
        for folder, chunks in shards.items()
        for chunk in chunks
    }
    _check_folder(out.resolve(), expected, path)
    work, results = work or Work(), list[ShardResult]()
    for folder, chunks in shards.items():
        work.on_open(source_of(chunks.data).report)
        remove_leftovers(folder, lambda name: name.endswith(".parquet"))
        task = functools.partial(write_shard, folder=folder, rows=rows)
        results += work.over(chunks, task)
    return sorted(results, key=lambda result: result.path)


def write_shard(chunk: Chunk, folder: Path, rows: int) -> ShardResult:
    """Write the shard of one chunk, unless it is there and was made from the same examples."""
    source, path = source_of(chunk.data), _shard_path(folder, chunk, rows)
    there = read_note(path)
    if there is not None and there.get("origin") == _origin(chunk):
        return ShardResult(path, there["rows"], there["broken"], skipped=True)
    with source.report.apart():
        table, broken = _read_chunk(source, chunk)
    note = json.dumps({"origin": _origin(chunk), "broken": broken})
    features = _hugging_face_note(chunk.data.selection.labels)
    table = table.replace_schema_metadata({NOTE_KEY: note, b"huggingface": features})
    mean_bytes = max(1, table.nbytes // max(1, table.num_rows))
    write_shard_file(
        path,
        table,
        row_group_size=max(1, GROUP_BYTES // mean_bytes),
        # Images are compressed already.
        compression={"image.bytes": "NONE", "image.path": "ZSTD", "key": "ZSTD"},
        use_dictionary=False,
        write_statistics=False,
    )
    return ShardResult(path, table.num_rows, broken)


def _shard_path(folder: Path, chunk: Chunk, rows: int) -> Path:
    return folder / f"{chunk.start // rows:05d}.parquet"


def _origin(chunk: Chunk) -> str:
    labels = chunk.data.selection.labels
    asked = "" if labels is None else f" {labels}"
    return f"{_VERSION} {chunk.data.fingerprint} {chunk.start} {chunk.stop}{asked}"


def _check_settings(rows: int, labels: str | None) -> None:
    """Refuse empty shards, and a column of labels that readers would take for something else."""
    if rows < 1:
        raise UsageError(f"got rows={rows}; expected at least 1")
    taken = ("key", *IMAGE_COLUMNS, *TEXT_COLUMNS)
    if labels == "" or labels in taken:
        raise UsageError(
            f"got --labels {labels!r}; expected folder, or a column that is none of those of keys, "
            f"images and captions, {list(taken)}: rename it in the data"
        )


def _check_folder(out: Path, expected: Mapping[Path, str], source: Path) -> None:
    """Refuse a folder with shards that are not to be there: they would be trained on as well.

    Args:
        out: of the shards.
        expected: what each shard that will be there is made from.
        source: of the data.

    Raises:
        UsageError: it holds some.
    """
    others = [
        file
        for file in _shards_that_are_read(out)
        if file not in expected or (read_note(file) or {}).get("origin") != expected[file]
    ]
    if others:
        raise UsageError(
            f"{out} holds {len(others)} shards made from other data than {source} is now, or with "
            f"other --labels or another --rows, e.g. {others[0].relative_to(out)}; choose another "
            "--out, or move them away"
        )


def _shards_that_are_read(out: Path) -> Iterator[Path]:
    """As `open_source` looks for them."""
    folders = [out, out / "data"]
    if out.is_dir():
        folders += [folder for folder in out.iterdir() if folder.name.isdigit()]
    for folder in folders:
        yield from sorted(folder.glob("*.parquet"))


def _read_chunk(source: EncodedSource, chunk: Chunk) -> tuple[Any, dict[str, str]]:
    """Table of a chunk, and the broken images left out of it."""
    import pyarrow as pa

    keys, images, captions, classes = [], [], [], list[str]()
    labels = chunk.data.selection.labels
    broken: dict[str, str] = {}
    for index in range(chunk.start, chunk.stop):
        key = source.key(index)
        try:
            data = source.image_bytes(index)
            decode_image(data)
        except BrokenImage as error:
            broken[key] = str(error)
            continue
        if labels is not None:
            classes.append(label_of(key, source.label(index), labels))
        keys.append(key)
        images.append({"bytes": data, "path": key.rpartition("/")[2]})
        # A shard has no place for backgrounds, and "on blue" over white would be a lie.
        texts = [c.text for c in source.captions(index) if c.background is None]
        # Lone surrogates, which JSON can bring, have no UTF-8.
        captions.append([text.encode("utf-8", "replace").decode() for text in texts])
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "key": pa.array(keys, pa.string()),
        "image": pa.array(images, image_type),
        "captions": pa.array(captions, pa.list_(pa.string())),
    }
    if labels is not None:
        columns[labels] = pa.array(classes, pa.string())
    return pa.table(columns), broken


def _hugging_face_note(labels: str | None) -> bytes:
    """The schema metadata by which `datasets` knows the column of images."""
    features: dict[str, Any] = {
        "key": {"dtype": "string", "_type": "Value"},
        "image": {"_type": "Image"},
        "captions": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    }
    if labels is not None:
        features[labels] = {"dtype": "string", "_type": "Value"}
    return json.dumps({"info": {"features": features}}).encode()
