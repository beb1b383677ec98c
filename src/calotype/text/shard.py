"""One file of the caption store: ragged token states of many captions, memory-mapped.

A shard is a safetensors file with the tensors

    key_high, key_low  (N,) uint64   the caption's key, see `caption_keys`; key_high ascends
    offsets            (N + 1,) int64  caption i has the tokens offsets[i] to offsets[i + 1]
    tokens             (T, D) float16 or int8
    scales             (T, G) float16, for int8 only: largest magnitude of each group of channels

and is there whole, or not at all. Nothing here knows what a key stands for.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from calotype.errors import CalotypeError
from calotype.storage.files import write_file
from calotype.storage.headers import read_header

Precision = Literal["float16", "int8"]
Array = npt.NDArray[Any]

GROUP_CHANNELS = 64
"""Channels that share one int8 scale: T5's few huge channels then spoil only their own group."""
GOES_ON = "run the same command again, and it goes on from there"

_LARGEST = float(np.finfo(np.float16).max)  # 65504
_KINDS = {"U64": "<u8", "I64": "<i8", "F16": "<f2", "I8": "i1"}


def caption_keys(captions: Sequence[str]) -> Array:
    """(N, 2) uint64: the first 128 bits of each caption's SHA-256 (UTF-8, surrogates replaced)."""
    data = b"".join(
        hashlib.sha256(caption.encode("utf-8", errors="replace")).digest()[:16]
        for caption in captions
    )
    return np.frombuffer(data, dtype=">u8").astype(np.uint64).reshape(-1, 2)


@dataclass(frozen=True)
class Entry:
    """The token states of one caption, (T, D), as they are stored.

    Args:
        key: its key, high and low.
        tokens: float16 or int8.
        scales: (T, G) float16 with int8, else None.
    """

    key: tuple[int, int]
    tokens: Array
    scales: Array | None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.tokens.nbytes + (0 if self.scales is None else self.scales.nbytes)

    @property
    def states(self) -> Array:
        """Token states (T, D) float32."""
        states = self.tokens.astype(np.float32)
        if self.scales is None:
            return states
        scales = np.repeat(self.scales.astype(np.float32) / 127.0, GROUP_CHANNELS, axis=1)
        decoded: Array = states * scales[:, : states.shape[1]]
        return decoded


def encode(key: tuple[int, int], states: Array, precision: Precision) -> Entry:
    """Round states (T, D) float32 to float16, or to int8 with a scale a group of channels.

    Raises:
        CalotypeError: a state is not finite, or too large for float16.
    """
    largest = float(np.abs(states).max(initial=0.0))
    if not largest <= _LARGEST:  # also refuses nan
        raise CalotypeError(
            f"caption store: got a state of magnitude {largest}, expected at most {_LARGEST:.0f}; "
            "embed in another dtype"
        )
    if precision == "float16":
        return Entry(key, states.astype(np.float16), None)
    length, width = states.shape
    groups = math.ceil(width / GROUP_CHANNELS)
    grouped = np.pad(states, ((0, 0), (0, groups * GROUP_CHANNELS - width)))
    grouped = grouped.reshape(length, groups, GROUP_CHANNELS)
    # Rounded up, so that no state is beyond 127 scales when the scale is stored in 16 bits.
    scales = np.abs(grouped).max(axis=2).astype(np.float16)
    with np.errstate(over="ignore"):
        scales = np.nextafter(scales, np.float16(np.inf))
    scales = np.minimum(scales, np.float16(_LARGEST))
    levels = np.rint(grouped * (127.0 / scales.astype(np.float32)[:, :, None]))
    tokens = np.clip(levels, -127, 127).astype(np.int8).reshape(length, groups * GROUP_CHANNELS)
    return Entry(key, np.ascontiguousarray(tokens[:, :width]), scales)


def write_shard(folder: Path, entries: Sequence[Entry]) -> Path:
    """Write a shard; its name follows from its keys, so that writing it twice is harmless.

    Raises:
        CalotypeError: the disk is full, or the folder cannot be written.
    """
    from safetensors.numpy import save

    entries = sorted(entries, key=lambda entry: entry.key)
    keys = np.array([entry.key for entry in entries], dtype=np.uint64)
    lengths = [len(entry.tokens) for entry in entries]
    tensors = {
        "key_high": np.ascontiguousarray(keys[:, 0]),
        "key_low": np.ascontiguousarray(keys[:, 1]),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "tokens": np.concatenate([entry.tokens for entry in entries]),
    }
    scales = [entry.scales for entry in entries if entry.scales is not None]
    if scales:
        tensors["scales"] = np.concatenate(scales)
    first, last = (f"{int(keys[row, 0]):016x}" for row in (0, -1))
    path = folder / f"{first}-{hashlib.sha256(keys.tobytes()).hexdigest()[:16]}.safetensors"
    data = save(tensors, {"first": first, "last": last})
    write_file(path, data, state=f"{len(data)} bytes needed; {GOES_ON}")
    return path


def shard_paths(folder: Path) -> list[Path]:
    """The shards in a folder, by name and so by their first key."""
    return sorted(p for p in folder.glob("*.safetensors") if not p.name.startswith("."))


class Shard:
    """A shard opened for reading; the tensors stay on disk until they are used."""

    def __init__(self, path: Path) -> None:
        """Map the file.

        Raises:
            CalotypeError: it cannot be read, or is not as long as its header says.
        """
        self.path = path
        try:
            header = read_header(path)
            self._header, self._start = header.tensors, header.start
            if not {"key_high", "tokens"} <= set(self._header):
                raise ValueError("not a shard of a caption store")
            first, last = header.metadata["first"], header.metadata["last"]
            self.first, self.last = int(first, 16), int(last, 16)
            expected = max(entry["data_offsets"][1] for entry in self._header.values())
            size = header.data_bytes
        except (CalotypeError, ValueError, LookupError, TypeError, AttributeError) as error:
            reason = str(error).removeprefix(f"{path} ").partition(";")[0]
            raise _broken(path, reason) from error
        if size != expected:
            raise _broken(path, f"got {size} bytes, expected {expected}")

    def __getstate__(self) -> dict[str, Any]:
        """Without the map, which would be copied into another process."""
        return {name: value for name, value in vars(self).items() if name != "_arrays"}

    def __len__(self) -> int:
        return int(self._header["key_high"]["shape"][0])

    @property
    def nbytes(self) -> int:
        """Size of the file in bytes."""
        return self.path.stat().st_size

    @cached_property
    def _arrays(self) -> dict[str, Array]:
        """The tensors, mapped when the first is used."""
        data = np.memmap(self.path, np.uint8, "r")
        arrays = {}
        for name, entry in self._header.items():
            start, shape, kind = entry["data_offsets"][0], entry["shape"], _KINDS[entry["dtype"]]
            flat = np.frombuffer(data, kind, math.prod(shape), self._start + start)
            arrays[name] = flat.reshape(shape)
        return arrays

    def find(self, keys: Array) -> Array:
        """Row of each key (M, 2), or -1, as (M,) int64."""
        high, low = self._arrays["key_high"], self._arrays["key_low"]
        rows = np.searchsorted(high, keys[:, 0]).astype(np.int64)
        near = np.minimum(rows, len(high) - 1)
        alike = (rows < len(high)) & (high[near] == keys[:, 0])
        found = np.where(alike & (low[near] == keys[:, 1]), rows, -1)
        for index in np.nonzero(alike & (found < 0))[0].tolist():  # half a key alike: look on
            end = np.searchsorted(high, keys[index, 0], side="right")
            same = np.flatnonzero(low[rows[index] : end] == keys[index, 1])
            found[index] = rows[index] + same[-1] if len(same) else -1
        return found

    @property
    def keys(self) -> Array:
        """(N, 2) uint64: the captions' keys, in the order of rows."""
        return np.stack([self._arrays["key_high"], self._arrays["key_low"]], axis=1)

    def entry(self, row: int) -> Entry:
        """The caption in a row, mapped."""
        arrays = self._arrays
        start, end = arrays["offsets"][row : row + 2].tolist()
        key = int(arrays["key_high"][row]), int(arrays["key_low"][row])
        scales = arrays["scales"][start:end] if "scales" in arrays else None
        return Entry(key, arrays["tokens"][start:end], scales)


def _broken(path: Path, reason: str) -> CalotypeError:
    return CalotypeError(
        f"caption store: shard {path} is damaged ({reason}); delete it and embed again"
    )
