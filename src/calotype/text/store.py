"""Caption embeddings computed once and kept on disk: ragged, memory-mapped, safe to kill.

    folder/
      <fingerprint of the encoder, 16 digits>-<precision>/
        encoder.json       which encoder, how wide, how precise
        <keys>.safetensors shards (`shard.py`): only ever added, each whole or not there

Several encoders and precisions lie side by side. Any number of processes may embed into one
folder at a time; one that is killed loses the shard in hand. A reader needs no encoder.

A caption is any text with states (L, D): whatever has the methods of a `TextEncoder` and makes
states of keys, one vector (1, D) of an image's name as well, can be stored in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch

from calotype.conditioning import TextEmbedding
from calotype.errors import CalotypeError, UsageError
from calotype.storage.files import remove_leftovers
from calotype.text.encoder import TextEncoder, check_encoder
from calotype.text.layout import StoreCard, StoreLayout, write_card
from calotype.text.shard import (
    Array,
    Entry,
    Precision,
    Shard,
    caption_keys,
    encode,
    shard_paths,
    write_shard,
)

Encode = Callable[[Sequence[str]], TextEmbedding]
_WINDOW_CAPTIONS = 16384  # captions sorted by length together
_READ_CAPTIONS, _READ_CHARACTERS = 131_072, 50_000_000  # captions looked up together


class MissingCaptionError(CalotypeError, LookupError):
    """A caption is not in the store, and there is no encoder to embed it with."""


class CaptionStore:
    """Reads the embeddings of one encoder: `store[captions]` is a `TextEmbedding`."""

    def __init__(self, card: StoreCard, *, encoder: Encode | None = None) -> None:
        """Open; `encoder` embeds captions that are missing (in memory, at each call)."""
        self.card = card
        self.encoder = encoder
        self._shards: dict[str, Shard] = {}
        self._ranges = np.zeros((0, 2), np.uint64)
        self.refresh()

    @property
    def embed_dim(self) -> int:
        """Width D of the token states."""
        return self.card.embed_dim

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the encoder."""
        return self.card.fingerprint

    def refresh(self) -> None:
        """Take in shards that were written since, and let go of those merged into others.

        Raises:
            CalotypeError: a shard is damaged.
        """
        kept, self._shards = self._shards, {}
        for path in shard_paths(self.card.folder):
            try:
                self._shards[path.name] = kept.get(path.name) or Shard(path)
            except CalotypeError:
                if path.exists():  # else merged since it was listed
                    raise
        ranges = [(shard.first, shard.last) for shard in self._shards.values()]
        self._ranges = np.array(ranges, np.uint64).reshape(-1, 2)

    def __len__(self) -> int:
        """Number of captions; one that two processes wrote counts twice."""
        return sum(len(shard) for shard in self._shards.values())

    def missing(self, captions: Iterable[str]) -> list[str]:
        """The captions that are not stored, each once, in their order."""
        wanted = [caption for caption in dict.fromkeys(captions) if caption.strip()]
        found = self._find(wanted)
        return [caption for caption, place in zip(wanted, found, strict=True) if place is None]

    def has_all(self, captions: Iterable[str]) -> bool:
        """Whether all captions are stored; they are not held, however many there are."""
        return not any(self.missing(part) for part in _parts(captions))

    def __getitem__(self, captions: Sequence[str]) -> TextEmbedding:
        """Token states (B, L, D) float32 and mask, padded to the longest caption.

        Raises:
            MissingCaptionError: a caption is not stored, and there is no encoder.
        """
        if isinstance(captions, str) or len(captions) == 0:
            raise UsageError(f"got {captions!r}, expected a list of captions; write [caption]")
        wanted = [caption for caption in dict.fromkeys(captions) if caption.strip()]
        try:
            states = self._stored(wanted)
        except FileNotFoundError:  # a shard was merged into others before it was first read
            self.refresh()
            states = self._stored(wanted)
        states |= self._embed_absent([caption for caption in wanted if caption not in states])
        nothing = np.zeros((0, self.embed_dim), np.float32)
        return _padded([states.get(caption, nothing) for caption in captions])

    def _stored(self, captions: Sequence[str]) -> dict[str, Array]:
        found = zip(captions, self._find(captions), strict=True)
        return {text: place[0].entry(place[1]).states for text, place in found if place is not None}

    def _find(self, captions: Sequence[str]) -> list[tuple[Shard, int] | None]:
        """Shard and row of each caption."""
        keys = caption_keys(captions)
        places: list[tuple[Shard, int] | None] = [None] * len(captions)
        shards = list(self._shards.values())
        for number in self._candidates(keys):
            shard, (first, last) = shards[number], self._ranges[number]
            (inside,) = np.nonzero((keys[:, 0] >= first) & (keys[:, 0] <= last))
            if len(inside) == 0:
                continue
            for index, row in zip(inside.tolist(), shard.find(keys[inside]).tolist(), strict=True):
                if row >= 0:
                    places[index] = (shard, row)
        return places

    def _candidates(self, keys: Array) -> Iterable[int]:
        """Numbers of the shards that may hold some of the keys."""
        firsts, lasts = self._ranges[:, 0], self._ranges[:, 1]
        if not bool((lasts[:-1] < firsts[1:]).all()):
            return range(len(self._ranges))
        # Merged: no two overlap, and each key can be in one alone. There may be thousands.
        numbers = np.unique(np.searchsorted(firsts, keys[:, 0], side="right")).tolist()
        return [number - 1 for number in numbers if number > 0]

    def _embed_absent(self, captions: Sequence[str]) -> dict[str, Array]:
        if not captions:
            return {}
        if self.encoder is None:
            raise MissingCaptionError(
                f"got {len(captions)} captions that are not in the store {self.card.folder} (first "
                f"{captions[0][:60]!r}); embed them, or let them be computed on the spot"
            )
        entries = _encode(self.encoder, captions, self.card.precision)
        return {text: entry.states for text, entry in zip(captions, entries, strict=True)}


def embed_captions(
    encoder: TextEncoder,
    captions: Iterable[str],
    *,
    folder: Path,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
    layout: StoreLayout | None = None,
) -> CaptionStore:
    """Embed the captions that the store lacks, and open it (without the encoder).

    Each caption is embedded once; empty ones need no storing. Captions are read as they are
    needed: memory does not grow with their number. `progress` gets (done, total) after each
    batch, of what was found missing so far.

    Raises:
        UsageError: the encoder makes token ids, which are computed as they are needed.
        CalotypeError: the folder cannot be written, or a shard is damaged.
    """
    layout = StoreLayout() if layout is None else layout
    encoder = check_encoder(encoder, getattr(encoder, "spec", "custom"))
    card = write_card(folder, encoder, layout.precision)
    remove_leftovers(card.folder, lambda name: name.endswith((".safetensors", ".json")))
    store = CaptionStore(card)
    writer = _ShardWriter(card.folder, layout)
    done = total = 0
    for part in _parts(captions):
        store.refresh()
        missing = writer.lacking(store.missing(part))
        total += len(missing)
        for batch in _batches(missing, batch_size):
            writer.add(_encode(encoder, batch, layout.precision))
            done += len(batch)
            if progress is not None:
                progress(done, total)
    writer.flush()
    store.refresh()
    return store


def _parts(captions: Iterable[str]) -> Iterator[list[str]]:
    """The captions, some at a time."""
    part, characters = list[str](), 0
    for caption in captions:
        part.append(caption)
        characters += len(caption)
        if len(part) >= _READ_CAPTIONS or characters >= _READ_CHARACTERS:
            yield part
            part, characters = [], 0
    if part:
        yield part


def _batches(captions: Sequence[str], batch_size: int) -> Iterable[list[str]]:
    """Batches of captions of about one length, so that little is computed on padding."""
    order = np.argsort(caption_keys(captions)[:, 0]).tolist()  # a shard then covers few keys
    for start in range(0, len(captions), _WINDOW_CAPTIONS):
        window = sorted((captions[i] for i in order[start : start + _WINDOW_CAPTIONS]), key=len)
        for first in range(0, len(window), batch_size):
            yield window[first : first + batch_size]


def _encode(encoder: Encode, captions: Sequence[str], precision: Precision) -> list[Entry]:
    text = encoder(captions)
    tokens, mask = text.tokens.float().cpu().numpy(), text.mask.cpu().numpy()
    rows = zip(caption_keys(captions).tolist(), tokens, mask, strict=True)
    return [encode((high, low), states[real], precision) for (high, low), states, real in rows]


class _ShardWriter:
    """Collects embedded captions, and writes a shard when it is large or old enough."""

    def __init__(self, folder: Path, layout: StoreLayout) -> None:
        self._folder = folder
        self._layout = layout
        self._held: dict[tuple[int, int], Entry] = {}
        self._bytes = 0
        self._since = time.monotonic()

    def add(self, entries: Sequence[Entry]) -> None:
        self._held |= {entry.key: entry for entry in entries}
        self._bytes += sum(entry.nbytes for entry in entries)
        old = time.monotonic() - self._since > self._layout.shard_seconds
        if old or self._bytes > self._layout.shard_bytes:
            self.flush()

    def lacking(self, captions: Sequence[str]) -> list[str]:
        """The captions that are not collected."""
        keys = map(tuple, caption_keys(captions).tolist()) if self._held else ()
        return [text for text, key in zip_longest(captions, keys) if key not in self._held]

    def flush(self) -> None:
        if self._held:
            write_shard(self._folder, list(self._held.values()))
        self._held, self._bytes, self._since = {}, 0, time.monotonic()


def _padded(states: Sequence[Array]) -> TextEmbedding:
    lengths = torch.tensor([len(rows) for rows in states])
    mask = torch.arange(max(1, int(lengths.max()))) < lengths[:, None]
    tokens = torch.zeros((*mask.shape, states[0].shape[1]))
    tokens[mask] = torch.from_numpy(np.concatenate(states))
    return TextEmbedding(tokens=tokens, mask=mask)
