"""Examples in WebDataset tar shards, read through an index in any order: no shuffle buffer.

The index (56 bytes a sample) is made by one pass over the headers and kept in the user's cache
folder, from where it is mapped; it is made anew when a shard's name, size or time changes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from calotype.data.example import Caption
from calotype.data.images import MAX_FILE_BYTES, BrokenImage
from calotype.data.labels import FOLDER, label_text
from calotype.data.listing import Listing
from calotype.data.metadata import TEXT_FIELDS
from calotype.data.source import EncodedSource, SourceReport, locate
from calotype.data.tar_index import SAMPLE, TarScan, open_headers, scan_tar, split_name
from calotype.data.text import (
    MAX_CAPTION_BYTES,
    DecodedText,
    decode_caption,
    decode_text,
    encodable,
)
from calotype.errors import CalotypeError, UsageError
from calotype.storage.files import make_folder, write_with
from calotype.storage.places import cache_folder
from calotype.storage.reading import check_regular, open_regular

_INDEX_VERSION = 1


class TarSource(EncodedSource):
    """Samples of tar shards, in the order of the files' names and within them."""

    def __init__(
        self,
        root: Path,
        files: Sequence[Path],
        listing: Listing | None = None,
        *,
        labels: str | None = None,
    ) -> None:
        """Load or make the indexes.

        Args:
            root: folder of the files.
            files: the shards.
            listing: what lies in `root`, if that is known.
            labels: as in `DataConfig`: a field of the JSON members, or folders within the tars.

        Raises:
            UsageError: a file is no tar.
        """
        self.root = root
        self._labels = labels
        self.files = tuple(sorted(files))
        self.report = SourceReport()
        if listing is not None:
            for name in listing.images:
                listing.ignore("image", name)
            self.report.ignored = listing.ignored
        self._marks: dict[Path, tuple[int, int]] = {}
        self._indexes: list[NDArray[np.void]] = []
        for file in self.files:
            try:
                self._marks[file] = _mark(file.stat())
            except OSError as error:
                raise UsageError(f"cannot read {file}: {error.strerror}; check --data") from error
            scan = _index(file)
            if scan.problem is not None:
                self.report.bad_metadata[self._name(file)] = scan.problem
            self._indexes.append(scan.samples)
        self._ends = np.cumsum([len(index) for index in self._indexes], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def key(self, index: int) -> str:
        """Tar and name of the sample, e.g. `00000.tar/000012`."""
        file, _ = self._locate(index)
        return encodable(f"{self._name(file)}/{self._sample_name(index)}")

    def label(self, index: int) -> str | None:
        """From the JSON member, or the folder that the sample lies in."""
        if self._labels is None:
            return None
        if self._labels == FOLDER:
            folder = self._sample_name(index).rpartition("/")[0]
            return label_text(folder.rpartition("/")[2])
        file, sample = self._locate(index)
        if sample["json"] < 0:
            return None
        return label_text(_json_values(self._decoded(file, sample, "json").text).get(self._labels))

    def _sample_name(self, index: int) -> str:
        file, sample = self._locate(index)
        with self._opened(file) as data:
            data.seek(int(sample["header"]))
            with open_headers(data) as tar:
                member = tar.next()
        return "?" if member is None else split_name(member.name)[0]

    def captions(self, index: int) -> tuple[Caption, ...]:
        """From the text member, else from `text` or `caption` in the JSON member."""
        file, sample = self._locate(index)
        texts: list[str] = []
        replaced = False
        for kind in ("text", "json"):
            if sample[kind] < 0 or texts:
                continue
            decoded = self._decoded(file, sample, kind)
            replaced |= decoded.replaced
            texts = [decoded.text] if kind == "text" else _json_texts(decoded.text)
        captions = tuple(Caption(text.strip()) for text in texts if text.strip())
        if replaced:
            self.report.replaced_captions.add(self.key(index))
        if not captions:
            self.report.empty_captions.add(self.key(index))
        return captions

    def _decoded(self, file: Path, sample: Any, kind: str) -> DecodedText:
        size = int(sample[f"{kind}_size"])
        if size > MAX_CAPTION_BYTES:
            return DecodedText("", True)
        data = self._read(file, int(sample[kind]), size)
        return decode_caption(data) if kind == "text" else decode_text(data)

    def image_bytes(self, index: int) -> bytes:
        """The encoded image; raises `BrokenImage`."""
        file, sample = self._locate(index)
        size = int(sample["image_size"])
        if size > MAX_FILE_BYTES:
            raise BrokenImage(f"got {size:,} bytes; expected at most {MAX_FILE_BYTES:,}")
        try:
            data = self._read(file, int(sample["image"]), size)
        except OSError as error:
            raise BrokenImage(f"cannot be read: {error.strerror}") from error
        if len(data) < size:
            raise BrokenImage(f"the tar is cut off: got {len(data)} of {size} bytes")
        return data

    def _locate(self, index: int) -> tuple[Path, Any]:
        number, place = locate(self._ends, index)
        return self.files[number], self._indexes[number][place]

    def _name(self, file: Path) -> str:
        return encodable(file.relative_to(self.root).as_posix())

    def _read(self, file: Path, offset: int, size: int) -> bytes:
        with self._opened(file) as data:
            data.seek(offset)
            return data.read(size)

    def _opened(self, file: Path) -> BinaryIO:
        """The tar, which must be the one that was indexed: offsets in another mean nothing."""
        try:
            data = open_regular(file)
        except OSError as error:
            raise CalotypeError(
                f"cannot read {file}: {error.strerror}; did the data change under the run?"
            ) from error
        if _mark(os.fstat(data.fileno())) != self._marks[file]:
            data.close()
            raise CalotypeError(f"{file} changed under the run; put it back, or start anew")
        return data


def _mark(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _json_values(text: str) -> dict[str, Any]:
    """The fields of a JSON object; none of what is no such."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _json_texts(text: str) -> list[str]:
    values = _json_values(text)
    value = next((values[name] for name in TEXT_FIELDS if name in values), None)
    return [str(v) for v in (value if isinstance(value, list) else [value]) if v is not None]


def _index(file: Path) -> TarScan:
    """Samples of a tar and what is wrong with it, from the cache folder if it has them."""
    cache = cache_folder()
    status = file.stat()
    mark = f"{_INDEX_VERSION}\0{file.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
    name = hashlib.sha256(mark.encode("utf-8", "surrogateescape")).hexdigest()
    kept = None if cache is None else cache / "tar-index" / f"{name}.npy"
    if kept is not None:
        with suppress(OSError, ValueError):
            check_regular(kept)
            samples = np.load(kept, mmap_mode="r")
            if samples.dtype == SAMPLE:
                return TarScan(samples)
    scan = scan_tar(file)
    if kept is not None and scan.problem is None:
        _keep(kept, scan.samples)
    return scan


def _keep(path: Path, samples: NDArray[np.void]) -> None:
    """Write an index under its name when it is whole; a read-only cache folder is no error."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # by name, NumPy would add an ending
            np.save(file, samples)

    with suppress(CalotypeError):
        make_folder(path.parent)
        write_with(path, write)
