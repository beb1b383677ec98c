"""Tidy a caption store: many small shards whose keys overlap become few large ones, in key order.

Processes that embed write what they have; a caption that two of them met is stored twice, and a
reader has to look into every shard. After merging each caption lies in one place, and a batch
opens few files. New shards are there whole before old ones go: a kill in between costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from calotype.errors import CalotypeError
from calotype.text.shard import Array, EmbeddedCaption, Shard, write_shard

SHARD_BYTES = 128_000_000
_LOOSE_SHARDS = 8
_LOCK = ".merging"


def merge_shards(folder: Path, *, shard_bytes: int = SHARD_BYTES, always: bool = False) -> int:
    """Merge the shards of one encoder's store where that pays; returns how many there are now.

    A few small shards are left as they are: a store that grows by a handful of captions is not
    written anew. Memory: 24 bytes a caption, and one shard.

    Args:
        folder: of one encoder and precision (`StoreCard.folder`).
        shard_bytes: size of the merged shards.
        always: merge whatever there is.

    Raises:
        CalotypeError: a shard is damaged, or the disk is full; nothing is lost then.
    """
    with _only_merger(folder) as alone:
        paths = sorted(p for p in folder.glob("*.safetensors") if not p.name.startswith("."))
        shards = [Shard(path) for path in paths]
        enough = sum(shard.nbytes for shard in shards) // shard_bytes + 1
        if (
            not alone
            or len(shards) < 2
            or (len(shards) <= 2 * enough + _LOOSE_SHARDS and not always)
        ):
            return len(paths)
        written = {_write(folder, shards, group) for group in _groups(shards, shard_bytes)}
        for path in set(paths) - written:
            path.unlink(missing_ok=True)
        return len(written)


def _groups(shards: Sequence[Shard], shard_bytes: int) -> Iterator[Array]:
    """(M, 2) shard and row of captions that are to be one shard, each caption once, by key."""
    keys = np.concatenate([shard.keys for shard in shards])
    places = np.concatenate(
        [np.stack([np.full(len(s), n), np.arange(len(s))], 1) for n, s in enumerate(shards)]
    ).astype(np.int64)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    keys, places = keys[order], places[order]
    places = places[np.append(True, (keys[1:] != keys[:-1]).any(axis=1))]
    start, size = 0, 0
    for number, (shard, row) in enumerate(places.tolist()):
        size += shards[shard].rows(row).nbytes
        if size >= shard_bytes:
            yield places[start : number + 1]
            start, size = number + 1, 0
    if start < len(places):
        yield places[start:]


def _write(folder: Path, shards: Sequence[Shard], places: Array) -> Path:
    captions = []
    for number, row in places.tolist():
        high, low = shards[number].key(row)
        captions.append(EmbeddedCaption((high, low), shards[number].rows(row)))
    return write_shard(folder, captions)


@contextmanager
def _only_merger(folder: Path) -> Iterator[bool]:
    """Whether no other process merges this folder; where there is no flock, one is trusted."""
    try:
        import fcntl
    except ImportError:
        yield True
        return
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise CalotypeError(
            f"cannot write to the caption store {folder}: {error.strerror}; check its permissions"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
