"""Tidy a caption store: many small shards whose keys overlap become few large ones, in key order.

Processes that embed write what they have; a caption that two of them met is stored twice, and a
reader has to look into every shard. After merging each caption lies in one place, and a batch
opens few files. New shards are there whole before old ones go: a kill in between costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from calotype.storage.lock import Busy, locked
from calotype.text.shard import Entry, Shard, shard_paths, write_shard

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
        CalotypeError: a shard is damaged, or the folder cannot be written; nothing is lost then.
    """
    try:
        with locked(folder / _LOCK):
            shards = [Shard(path) for path in shard_paths(folder)]
            enough = sum(shard.nbytes for shard in shards) // shard_bytes + 1
            most = 1 if always else max(1, 2 * enough + _LOOSE_SHARDS)
            if len(shards) <= most:
                return len(shards)
            written = {write_shard(folder, group) for group in _groups(shards, shard_bytes)}
            for path in {shard.path for shard in shards} - written:
                path.unlink(missing_ok=True)
            return len(written)
    except Busy:  # another process merges
        return len(shard_paths(folder))


def _groups(shards: Sequence[Shard], shard_bytes: int) -> Iterator[list[Entry]]:
    """The captions that are to be one shard, each caption once, by key."""
    keys = np.concatenate([shard.keys for shard in shards])
    places = np.concatenate(
        [np.stack([np.full(len(s), n), np.arange(len(s))], 1) for n, s in enumerate(shards)]
    ).astype(np.int64)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    keys, places = keys[order], places[order]
    places = places[np.append(True, (keys[1:] != keys[:-1]).any(axis=1))]
    group, size = list[Entry](), 0
    for number, row in places.tolist():
        group.append(shards[number].entry(row))
        size += group[-1].nbytes
        if size >= shard_bytes:
            yield group
            group, size = [], 0
    if group:
        yield group
