"""Merging keeps every caption, each once, and costs nothing when it is broken off."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
import torch

from calotype.errors import CalotypeError
from calotype.text.byte import ByteTextEncoder
from calotype.text.layout import StoreLayout, store_cards
from calotype.text.merge import merge_shards
from calotype.text.shard import Shard, caption_keys
from calotype.text.store import CaptionStore, embed_captions

CAPTIONS = [f"caption number {i} " + "x" * (i % 17) for i in range(300)]
ENCODER = ByteTextEncoder(8)


def opened(folder: Path) -> CaptionStore:
    (card,) = (c for c in store_cards(folder) if c.folder.parent == folder)
    return CaptionStore(card)


def scattered(folder: Path, *, precision: str = "float16", pieces: int = 20) -> CaptionStore:
    """A store of many shards over the same keys; shared captions are in several."""
    layout = StoreLayout(precision=precision)
    for piece in range(pieces):
        other = folder / "other"  # empty: so that nothing is found there
        mine = [*CAPTIONS[piece::pieces], *CAPTIONS[:5]]
        embed_captions(ENCODER, mine, folder=other, layout=layout)
        (made,) = other.glob("*/*.safetensors")
        target = folder / made.parent.name
        target.mkdir(exist_ok=True)
        made.rename(target / made.name)
        (made.parent / "encoder.json").replace(target / "encoder.json")
    return opened(folder)


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_every_caption_once_bit_for_bit(tmp_path: Path, precision: str) -> None:
    store = scattered(tmp_path, precision=precision)
    before = store[CAPTIONS]
    assert len(store) > 300 and len(store._shards) == 20
    count = merge_shards(store.card.folder, shard_bytes=40_000)
    merged = opened(tmp_path)
    assert len(merged) == 300 and 2 <= count == len(merged._shards) < 20
    after = merged[CAPTIONS]
    assert torch.equal(before.tokens, after.tokens) and torch.equal(before.mask, after.mask)
    shards = [Shard(path) for path in sorted(store.card.folder.glob("*.safetensors"))]
    for left, right in itertools.pairwise(shards):
        assert left.last < right.first
    names = {path: path.stat().st_mtime_ns for path in store.card.folder.glob("*.safetensors")}
    assert merge_shards(store.card.folder, shard_bytes=40_000) == count
    assert names == {p: p.stat().st_mtime_ns for p in store.card.folder.glob("*.safetensors")}


def test_an_open_reader_finds_what_was_merged_under_it(tmp_path: Path) -> None:
    store = scattered(tmp_path)
    truth = opened(tmp_path)[CAPTIONS]
    merge_shards(store.card.folder, always=True)
    assert torch.equal(store[CAPTIONS].tokens, truth.tokens)
    assert len(store) == 300


def test_a_few_small_shards_are_left_alone(tmp_path: Path) -> None:
    store = scattered(tmp_path, pieces=4)
    assert merge_shards(store.card.folder) == 4
    assert merge_shards(store.card.folder, always=True) == 1


@pytest.mark.parametrize("operation", ["write", "unlink"])
def test_broken_off_anywhere_nothing_is_lost(
    tmp_path: Path, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = scattered(tmp_path)
    truth = store[CAPTIONS]
    left = 3

    def failing(*_: object, **__: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(28, "No space left on device")

    real_fsync, real_unlink = os.fsync, Path.unlink
    if operation == "write":
        monkeypatch.setattr(os, "fsync", lambda file: failing() or real_fsync(file))
    else:

        def unlink(path: Path, missing_ok: bool = False) -> None:
            if not path.name.startswith("."):  # temporary files are removed in any case
                failing()
            real_unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises((CalotypeError, OSError), match="No space left"):
        merge_shards(store.card.folder, shard_bytes=20_000, always=True)
    monkeypatch.undo()
    again = opened(tmp_path)
    assert again.missing(CAPTIONS) == []
    assert torch.equal(again[CAPTIONS].tokens, truth.tokens)
    merge_shards(store.card.folder, shard_bytes=20_000, always=True)
    again.refresh()
    assert len(again) == 300


def test_only_one_process_merges(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    store = scattered(tmp_path)
    with (store.card.folder / ".merging").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert merge_shards(store.card.folder, always=True) == 20
    assert merge_shards(store.card.folder, always=True) == 1


def test_a_merged_store_opens_only_shards_that_may_hold_a_caption(tmp_path: Path) -> None:
    """By key: each caption's own shard is looked into, and no other."""
    layout = StoreLayout(shard_bytes=500)
    store = embed_captions(ENCODER, CAPTIONS, folder=tmp_path, batch_size=8, layout=layout)
    merge_shards(store.card.folder, shard_bytes=2000, always=True)
    store = opened(tmp_path)
    assert len(store._shards) > 5
    for caption in CAPTIONS[:20]:
        keys = caption_keys([caption])
        (number,) = store._candidates(keys)
        assert list(store._shards.values())[number].find(keys)[0] >= 0
    assert store.missing([*CAPTIONS, "not there"]) == ["not there"]
