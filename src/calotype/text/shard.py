"""One file of the caption store: ragged token states of many captions, memory-mapped.

A shard is a safetensors file with the tensors

    key_high, key_low  (N,) uint64   the caption's key, see `caption_keys`; key_high ascends
    offsets            (N + 1,) int64  caption i has the tokens offsets[i] to offsets[i + 1]
    tokens             (T, D) float16 or int8
    scales             (T, G) float16, for int8 only: largest magnitude of each group of channels

and is written under another name, synced and renamed: it is there whole, or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from calotype.errors import CalotypeError
from calotype.storage.files import sync_folder
from calotype.storage.headers import read_header

Precision = Literal["float16", "int8"]
Array = npt.NDArray[Any]

GROUP_CHANNELS = 64
"""Channels that share one int8 scale: T5's few huge channels then spoil only their own group."""

_LARGEST = float(np.finfo(np.float16).max)  # 65504
_TEMPORARY = ".writing-"
_STALE_SECONDS = 600.0
_KINDS = {"U64": "<u8", "I64": "<i8", "F16": "<f2", "I8": "i1"}


def caption_keys(captions: Sequence[str]) -> Array:
    """(N, 2) uint64: the first 128 bits of each caption's SHA-256 (UTF-8, surrogates replaced)."""
    data = b"".join(
        hashlib.sha256(caption.encode("utf-8", errors="replace")).digest()[:16]
        for caption in captions
    )
    return np.frombuffer(data, dtype=">u8").astype(np.uint64).reshape(-1, 2)


@dataclass(frozen=True)
class TokenRows:
    """Encoded tokens (T, D) as they are stored.

    Args:
        tokens: float16 or int8.
        scales: (T, G) float16 with int8, else None.
    """

    tokens: Array
    scales: Array | None

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.tokens.nbytes + (0 if self.scales is None else self.scales.nbytes)


def encode_rows(states: Array, precision: Precision) -> TokenRows:
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
        return TokenRows(states.astype(np.float16), None)
    grouped = _grouped(states)  # (T, G, c)
    # Rounded up, so that no state is beyond 127 scales when the scale is stored in 16 bits.
    scales = np.abs(grouped).max(axis=2).astype(np.float16)
    with np.errstate(over="ignore"):
        scales = np.nextafter(scales, np.float16(np.inf))
    scales = np.minimum(scales, np.float16(_LARGEST))
    levels = np.rint(grouped * (127.0 / scales.astype(np.float32)[:, :, None]))
    tokens = np.clip(levels, -127, 127).astype(np.int8).reshape(len(states), -1)
    return TokenRows(np.ascontiguousarray(tokens[:, : states.shape[1]]), scales)


def decode_rows(rows: TokenRows) -> Array:
    """States (T, D) float32 of what `encode_rows` made."""
    states = rows.tokens.astype(np.float32)
    if rows.scales is None:
        return states
    scales = np.repeat(rows.scales.astype(np.float32) / 127.0, GROUP_CHANNELS, axis=1)
    decoded: Array = states * scales[:, : states.shape[1]]
    return decoded


def _grouped(states: Array) -> Array:
    groups = math.ceil(states.shape[1] / GROUP_CHANNELS)
    padded = np.zeros((len(states), groups * GROUP_CHANNELS), np.float32)
    padded[:, : states.shape[1]] = states
    return padded.reshape(len(states), groups, GROUP_CHANNELS)


@dataclass(frozen=True)
class EmbeddedCaption:
    """One caption on its way into a shard: its key (high, low), and its tokens."""

    key: tuple[int, int]
    rows: TokenRows


def write_shard(folder: Path, captions: Sequence[EmbeddedCaption]) -> Path:
    """Write a shard; its name follows from its keys, so that writing it twice is harmless.

    Raises:
        CalotypeError: the disk is full, or the folder cannot be written.
    """
    captions = sorted(captions, key=lambda caption: caption.key)
    keys = np.array([caption.key for caption in captions], dtype=np.uint64)
    lengths = [len(caption.rows.tokens) for caption in captions]
    tensors = {
        "key_high": keys[:, 0],
        "key_low": keys[:, 1],
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "tokens": np.concatenate([caption.rows.tokens for caption in captions]),
    }
    scales = [caption.rows.scales for caption in captions if caption.rows.scales is not None]
    if scales:
        tensors["scales"] = np.concatenate(scales)
    name = f"{int(keys[0, 0]):016x}-{hashlib.sha256(keys.tobytes()).hexdigest()[:16]}.safetensors"
    metadata = {"first": f"{int(keys[0, 0]):016x}", "last": f"{int(keys[-1, 0]):016x}"}
    _write_safetensors(folder / name, tensors, metadata)
    return folder / name


def _write_safetensors(path: Path, tensors: dict[str, Array], metadata: dict[str, str]) -> None:
    from safetensors.numpy import save

    data = save({name: np.ascontiguousarray(t) for name, t in tensors.items()}, metadata)
    write_atomically(path, data)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that is either there with all its bytes, synced to disk, or not there.

    Raises:
        CalotypeError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise CalotypeError(
            f"cannot write {path}: {error.strerror} ({len(data)} bytes needed); make room or "
            "choose another folder, and run the same command again: it goes on from there"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_stale_files(folder: Path) -> None:
    """Remove what killed writers left; files touched in the last ten minutes may be in use."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


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
        self._arrays: dict[str, Array] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without the maps, which would be copied into another process."""
        return self.__dict__ | {"_arrays": {}}

    def __len__(self) -> int:
        """Number of captions."""
        return int(self._header["key_high"]["shape"][0])

    @property
    def nbytes(self) -> int:
        """Size of the file in bytes."""
        return self.path.stat().st_size

    def _array(self, name: str) -> Array:
        if name not in self._arrays:
            entry = self._header[name]
            start = self._start + entry["data_offsets"][0]
            shape, kind = tuple(entry["shape"]), _KINDS[entry["dtype"]]
            if 0 in shape:  # an empty file section cannot be mapped
                self._arrays[name] = np.zeros(shape, kind)
            else:
                mapped = np.memmap(self.path, kind, "r", offset=start, shape=shape)
                self._arrays[name] = np.asarray(mapped)  # slices of a memmap itself are slow
        return self._arrays[name]

    def find(self, keys: Array) -> Array:
        """Row of each key (M, 2), or -1, as (M,) int64."""
        high, low = self._array("key_high"), self._array("key_low")
        rows = np.searchsorted(high, keys[:, 0]).astype(np.int64)
        near = np.minimum(rows, len(high) - 1)
        alike = (rows < len(high)) & (high[near] == keys[:, 0])
        found = np.where(alike & (low[near] == keys[:, 1]), rows, -1)
        for index in np.nonzero(alike & (found < 0))[0].tolist():  # half a key alike: look on
            for row in range(int(rows[index]) + 1, len(high)):
                if high[row] != keys[index, 0]:
                    break
                if low[row] == keys[index, 1]:
                    found[index] = row
        return found

    @property
    def keys(self) -> Array:
        """(N, 2) uint64: the captions' keys, in the order of rows."""
        return np.stack([self._array("key_high"), self._array("key_low")], axis=1)

    def key(self, row: int) -> tuple[int, int]:
        """Key of the caption in a row."""
        return int(self._array("key_high")[row]), int(self._array("key_low")[row])

    def rows(self, row: int) -> TokenRows:
        """Tokens of the caption in a row as they are stored, mapped."""
        start, end = self._array("offsets")[row : row + 2].tolist()
        scales = self._array("scales")[start:end] if "scales" in self._header else None
        return TokenRows(self._array("tokens")[start:end], scales)

    def states(self, row: int) -> Array:
        """Token states (L, D) float32 of the caption in a row."""
        return decode_rows(self.rows(row))


def _broken(path: Path, reason: str) -> CalotypeError:
    return CalotypeError(
        f"caption store: shard {path} is damaged ({reason}); delete it and embed again"
    )
