"""Convert any data to Parquet shards: pictures as they are, captions, keys.

A shard is a fixed range of examples, written under its name when it is whole and skipped when it
is there already, so that the work can be interrupted, repeated and shared.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.data.open import parts
from calotype.data.pictures import BrokenPicture, decode_picture
from calotype.data.source import EncodedSource
from calotype.data.work import Chunk, chunks_of, open_for_work, source_of, work_over
from calotype.errors import CalotypeError, MissingExtra, UsageError

GROUP_BYTES = 2_000_000
"""Bytes of pictures in a row group, about: what is read for one picture."""

SPLIT = "train"
"""Examples set aside for evaluation stay where they are: what comes out is all trained on."""

_NOTE = b"calotype"
_VERSION = 1
_PARTIAL = ".partial-"
_STALE_SECONDS = 3600.0


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
    processes: int = 1,
    ray: str | None = None,
    on_shard: Callable[[ShardResult], None] | None = None,
) -> list[ShardResult]:
    """Convert the data at `path` to shards `out/00000.parquet`, ...

    Of data with splits, only "train" is taken, and only captions without a background. Data with
    shards by size become `out/256/00000.parquet` and so on.

    Args:
        path: anything that `open_source` takes.
        out: folder of the shards; must not be the source.
        rows: examples of a shard; broken ones are left out, and named in the result.
        processes: local processes.
        ray: address of a Ray cluster that does the work instead; see `ray_jobs.connected`.
        on_shard: called with each result, for progress.

    Raises:
        UsageError: the arguments do not fit.
        CalotypeError: a shard cannot be written.
    """
    if rows < 1:
        raise UsageError(f"got rows={rows}; expected at least 1")
    if out.resolve() == path.resolve():
        raise UsageError(f"got {out} as both source and target; expected another folder for shards")
    _pyarrow()
    results = []
    for part in parts(path):
        folder = out.resolve() / part
        _remove_stale_files(folder)
        chunks = chunks_of(open_for_work(path, part, SPLIT), size=rows)
        task = functools.partial(write_shard, folder=folder, rows=rows)
        for result in work_over(chunks, task, processes=processes, ray=ray):
            results.append(result)
            if on_shard is not None:
                on_shard(result)
    return sorted(results, key=lambda result: result.path)


def write_shard(chunk: Chunk, folder: Path, rows: int) -> ShardResult:
    """Write the shard of one chunk, unless it is there and was made from the same examples."""
    source = source_of(chunk.data)
    path = folder / f"{chunk.start // rows:05d}.parquet"
    origin = f"{_VERSION} {source.fingerprint} {chunk.start} {chunk.stop}"
    done = _finished(path, origin)
    if done is not None:
        return done
    with source.report.apart():
        table, broken = _read_chunk(source, chunk)
    note = json.dumps({"origin": origin, "broken": broken})
    table = table.replace_schema_metadata({_NOTE: note, b"huggingface": _hugging_face_note()})
    # Another machine may have the same process number.
    partial = path.with_name(f"{path.name}{_PARTIAL}{uuid.uuid4().hex[:12]}")
    mean_bytes = max(1, table.nbytes // max(1, table.num_rows))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _pyarrow().parquet.write_table(
            table,
            partial,
            row_group_size=max(1, GROUP_BYTES // mean_bytes),
            # Pictures are compressed already.
            compression={"image.bytes": "NONE", "image.path": "ZSTD", "key": "ZSTD"},
            use_dictionary=False,
            write_statistics=False,
        )
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        needed = table.nbytes / 1e6
        raise CalotypeError(
            f"cannot write {path} ({needed:.0f} MB): {error.strerror}; free space or choose "
            "another folder, and run the command again: finished shards are kept"
        ) from error
    return ShardResult(path, table.num_rows, broken)


def _read_chunk(source: EncodedSource, chunk: Chunk) -> tuple[Any, dict[str, str]]:
    """Table of a chunk, and the broken pictures left out of it."""
    pa = _pyarrow()
    keys, images, captions = [], [], []
    broken: dict[str, str] = {}
    for index in range(chunk.start, chunk.stop):
        key = source.key(index)
        try:
            data = source.picture_bytes(index)
            decode_picture(data)
        except BrokenPicture as error:
            broken[key] = str(error)
            continue
        keys.append(key)
        images.append({"bytes": data, "path": key.rpartition("/")[2]})
        # A shard has no place for backgrounds, and "on blue" over white would teach a lie.
        texts = [c.text for c in source.captions(index) if c.background is None]
        # Lone surrogates, which JSON can bring, have no UTF-8.
        captions.append([text.encode("utf-8", "replace").decode() for text in texts])
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "key": pa.array(keys, pa.string()),
        "image": pa.array(images, image_type),
        "captions": pa.array(captions, pa.list_(pa.string())),
    }
    return pa.table(columns), broken


def _remove_stale_files(folder: Path) -> None:
    """Remove what killed writers left; files touched in the last hour may be in use."""
    for file in folder.glob(f"*.parquet{_PARTIAL}*"):
        with contextlib.suppress(OSError):
            if time.time() - file.stat().st_mtime > _STALE_SECONDS:
                file.unlink()


def _finished(path: Path, origin: str) -> ShardResult | None:
    try:
        metadata = _pyarrow().parquet.read_metadata(path)
        note = json.loads(metadata.metadata[_NOTE])
        if note["origin"] != origin:
            return None
        return ShardResult(path, metadata.num_rows, note["broken"], skipped=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hugging_face_note() -> bytes:
    """The schema metadata by which `datasets` knows the column of pictures."""
    features = {
        "key": {"dtype": "string", "_type": "Value"},
        "image": {"_type": "Image"},
        "captions": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
    }
    return json.dumps({"info": {"features": features}}).encode()


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("data", "pyarrow") from error
    return pyarrow
