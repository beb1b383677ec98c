"""The index of tar shards: where each sample's image and caption lie, so that any can be read.

A WebDataset shard is a tar whose neighbouring members with the same name up to the first dot of
the file name are one sample (`000012.jpg`, `000012.txt`). Scanning reads the headers only.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from calotype.data.images import SUFFIXES
from calotype.errors import UsageError
from calotype.storage.reading import open_regular

_KINDS = {suffix: "image" for suffix in SUFFIXES} | {
    ".txt": "text",
    ".caption": "text",
    ".text": "text",
    ".json": "json",
}
"""What a member is, by its suffix."""

_LARGEST_HEADER = 1_000_000

_FIELDS = ("header", "image", "image_size", "text", "text_size", "json", "json_size")
SAMPLE = np.dtype([(name, np.int64) for name in _FIELDS])
"""Offsets and sizes in bytes within the tar; `header` is where the image's header begins; an
offset of -1 = there is none."""


def open_headers(file: BinaryIO) -> tarfile.TarFile:
    """A tar for reading its headers from where `file` stands; they are of a bounded size.

    Raises:
        tarfile.TarError: it is none, or begins with a larger header.
    """
    return tarfile.open(fileobj=cast(Any, _HeaderReader(file)), mode="r:")


class _HeaderReader:
    """A file for tarfile, which reads as much as a header says that it has to say."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > _LARGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


@dataclass
class TarScan:
    """The samples of one tar; `problem` says what is wrong with it as a whole."""

    samples: NDArray[np.void]
    problem: str | None = None


def scan_tar(file: Path) -> TarScan:
    """Find the samples of a tar; samples without an image are left out.

    A tar that ends early keeps its samples, the last one perhaps cut (reading tells).

    Raises:
        UsageError: it is no tar, or compressed.
    """
    rows: list[tuple[int, ...]] = []
    name, fields, problem = "", dict[str, int](), None
    try:
        with open_regular(file) as data, open_headers(data) as tar:
            size = os.fstat(data.fileno()).st_size
            try:
                reached = -1
                while (member := tar.next()) is not None:
                    _check_member(member, after=reached, size=size)
                    reached = member.offset
                    # tarfile keeps every member it has seen; a shard may have a million.
                    tar.members.clear()  # type: ignore[attr-defined]
                    stem, suffix = split_name(member.name)
                    if stem != name:
                        _add(rows, fields)
                        name, fields = stem, {}
                    kind = _KINDS.get(suffix)
                    if member.isfile() and kind is not None and kind not in fields:
                        fields |= {kind: member.offset_data, f"{kind}_size": member.size}
                        if kind == "image":
                            fields["header"] = member.offset
            except (tarfile.TarError, ValueError, OverflowError) as error:
                problem = f"is cut off or damaged ({error}); its first samples are used"
            _add(rows, fields)
            end = int(tar.offset)
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"cannot read {file} as a tar: {reason}; compressed tars must be unpacked first"
        ) from error
    if problem is None and not _ends_at(file, end):
        problem = f"is cut off or damaged at byte {end:,}; the samples before are used"
    return TarScan(np.array(rows, dtype=SAMPLE), problem)


def _check_member(member: tarfile.TarInfo, *, after: int, size: int) -> None:
    """Refuse a header that lies: tarfile goes wherever it points to, backwards and for ever.

    Raises:
        tarfile.ReadError: it has a size below 0, is no further than the one before, is sparse, or
            ends beyond the file of `size` bytes.
    """
    if member.size < 0 or member.offset <= after or member.offset_data <= member.offset:
        raise tarfile.ReadError(f"a header at byte {member.offset} points backwards")
    if member.issparse():
        raise tarfile.ReadError(f"a sparse file at byte {member.offset}")
    if member.isreg() and member.offset_data + member.size > size:
        raise tarfile.ReadError(f"a file at byte {member.offset} ends beyond the tar")


def split_name(name: str) -> tuple[str, str]:
    """Sample and lower-case suffix of a member: up to the first dot of the file name, and after."""
    folder, slash, file = name.rpartition("/")
    stem, dot, suffix = file.partition(".")
    return folder + slash + stem, (dot + suffix).lower()


def _add(rows: list[tuple[int, ...]], fields: Mapping[str, int]) -> None:
    """Note a sample, unless it has no image."""
    if "image" in fields:
        rows.append(tuple(fields.get(name, -1) for name in _FIELDS))


def _ends_at(file: Path, offset: int) -> bool:
    """Whether a block of zeros, the end of a tar, lies at `offset` (POSIX ustar).

    tarfile itself takes a damaged header for the end.
    """
    with open_regular(file) as data:
        data.seek(offset)
        block = data.read(tarfile.BLOCKSIZE)
    return len(block) == tarfile.BLOCKSIZE and not any(block)
