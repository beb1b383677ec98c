"""Examples in Parquet shards: of name and style, `calotype data shard`'s, and Hugging Face's.

An image is a struct<bytes, path> (Hugging Face's image feature) or plain bytes; captions are a
text column, or the parts (name, keywords, style) of which a grammar makes variants. Memory does
not grow with the set: counts of selected rows are kept for each row group, the rest is read when
asked for and kept for a while. One image costs the reading of its row group, so small row
groups (a megabyte or so) read best.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from calotype.data.columns import (
    DECIDING_COLUMNS,
    READ_ERRORS,
    Selection,
    check_columns,
    has_styles,
    image_cell,
    image_column,
    pyarrow,
    reason_of,
    row_columns,
    selected_rows,
    texts_as_bytes,
)
from calotype.data.images import BrokenImage
from calotype.data.source import SourceReport, locate
from calotype.data.table import TableSource
from calotype.data.text import encodable
from calotype.errors import CalotypeError, UsageError
from calotype.storage.reading import check_regular

MOST_GROUP_ROWS = 1 << 20
"""What pyarrow writes if it is not told otherwise; more would not be read for one image."""

MOST_GROUP_BYTES = 8_000_000_000
"""Images of a row group that are held at a time."""

_BATCH_ROWS = 256
_IMAGE_CACHE_BYTES = 256_000_000
IN_ORDER_CACHE_BYTES = 16_000_000
"""Enough where examples are read one after the other."""
_ROW_CACHE_BYTES = 128_000_000
_OPEN_FILES = 32

V = TypeVar("V")


class ParquetSource(TableSource):
    """Rows of Parquet files as examples, in the order of the files' names."""

    def __init__(
        self,
        root: Path,
        files: Sequence[Path],
        selection: Selection,
        *,
        cache_bytes: int = _IMAGE_CACHE_BYTES,
    ) -> None:
        """Read the footers and the columns that decide the selection.

        Args:
            root: folder of the files.
            files: of all rows.
            selection: of them.
            cache_bytes: of encoded images, kept for examples that are asked for in any order.

        Raises:
            MissingExtra: pyarrow is not installed.
            UsageError: a file is no Parquet file, or has no column of images or captions.
        """
        self.root = root
        self.files = tuple(sorted(files))
        self.selection = selection
        self.report = SourceReport()
        self._lock = threading.Lock()
        self._readers: _Recent[Any] = _Recent(_OPEN_FILES)
        self._images: _Recent[Any] = _Recent(cache_bytes)
        self._rows: _Recent[_Rows] = _Recent(_ROW_CACHE_BYTES)
        groups: list[tuple[int, int]] = []
        counts: list[int] = []
        for number in range(len(self.files)):
            with _explained(self.files[number]):
                for group, count in enumerate(self._count_selected(number)):
                    groups.append((number, group))
                    counts.append(count)
        self._groups = np.array(groups, dtype=np.int32).reshape(-1, 2)
        self._ends = np.cumsum(np.array(counts, dtype=np.int64))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def _row(self, index: int) -> tuple[Any, int]:
        group, place = locate(self._ends, index)
        rows = self._group_rows(group)
        return rows.table, int(rows.numbers[place])

    def _place(self, index: int) -> str:
        group, _ = locate(self._ends, index)
        file, row_group = self._groups[group]
        name = self.files[file].relative_to(self.root).as_posix()
        return encodable(f"{name}:{row_group}:{self._row(index)[1]}")

    def image_bytes(self, index: int) -> bytes:
        """The encoded image of a row; raises `BrokenImage`."""
        group, place = locate(self._ends, index)
        number = int(self._group_rows(group).numbers[place])
        with self._lock:
            column = self._images.get(group, lambda: self._read_images(group))
        return image_cell(column[number].as_py())

    def _group_rows(self, group: int) -> _Rows:
        with self._lock:
            return self._rows.get(group, lambda: self._read_rows(group))

    def _read_rows(self, group: int) -> _Rows:
        file, number = (int(v) for v in self._groups[group])
        with _explained(self.files[file]):
            reader = self._reader(file)
            names = reader.schema_arrow.names
            table = reader.read_row_group(number, columns=row_columns(names, self.selection))
            mask = selected_rows(table, table.num_rows, self.selection)
            return _Rows(texts_as_bytes(table), np.flatnonzero(mask))

    def _read_images(self, group: int) -> Any:
        file, number = (int(v) for v in self._groups[group])
        try:
            reader = self._reader(file)
            name = image_column(reader.schema_arrow.names)
            return _read_bounded(reader, number, name)
        except READ_ERRORS as error:
            raise BrokenImage(f"row group {number} cannot be read: {error}") from error

    def _count_selected(self, number: int) -> list[int]:
        """Selected rows of each row group of a file."""
        file, reader = self.files[number], self._reader(number)
        check_columns(file, reader.schema_arrow, self.selection)
        metadata = reader.metadata
        sizes = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
        if max(sizes, default=0) > MOST_GROUP_ROWS:
            raise UsageError(
                f"got a row group of {max(sizes):,} rows in {file}; expected at most "
                f"{MOST_GROUP_ROWS:,}: write it again with row_group_size=64 or so"
            )
        names = reader.schema_arrow.names
        deciding = [n for n in DECIDING_COLUMNS if n in names]
        self.has_splits |= "split" in names
        self.has_styles |= has_styles(names)
        if not deciding:
            return sizes
        counts = []
        for group, size in enumerate(sizes):
            table = reader.read_row_group(group, columns=deciding)
            counts.append(int(selected_rows(table, size, self.selection).sum()))
        return counts

    def _reader(self, number: int) -> Any:
        return self._readers.get(number, lambda: _open_parquet(self.files[number]))


@dataclass(frozen=True)
class _Rows:
    """Text columns of a row group, and the numbers of the selected rows."""

    table: Any
    numbers: Any

    @property
    def nbytes(self) -> int:
        return int(self.table.nbytes) + int(self.numbers.nbytes)


class _Recent(Generic[V]):
    """Values by number, the most recent ones up to a total weight (bytes, or 1 each)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.weight = 0
        self._values: OrderedDict[int, V] = OrderedDict()

    def get(self, key: int, make: Callable[[], V]) -> V:
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        value = self._values[key] = make()
        self.weight += getattr(value, "nbytes", 1)
        while self.weight > self.limit and len(self._values) > 1:
            self.weight -= getattr(self._values.popitem(last=False)[1], "nbytes", 1)
        return value


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Turn pyarrow's errors into one that names the file."""
    try:
        yield
    except CalotypeError:
        raise
    except FileNotFoundError as error:
        raise CalotypeError(f"{file} is gone; did the data change under the run?") from error
    except READ_ERRORS as error:
        raise UsageError(
            f"cannot read {file} as Parquet: {reason_of(error)}; make it again or move it away"
        ) from error


def _open_parquet(file: Path) -> Any:
    parquet = pyarrow().parquet
    check_regular(file)
    # Not mapped: a file that is cut short under the run would end the process without a word.
    return parquet.ParquetFile(file)


def _read_bounded(reader: Any, group: int, name: str) -> Any:
    """The images of a row group, as a chunked array.

    A small file can say one image a million times: the size is known only as it is read.

    Raises:
        ValueError: they need more than `MOST_GROUP_BYTES`.
    """
    import pyarrow as pa

    chunks, size = [], 0
    for batch in reader.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[name]):
        chunks.append(batch.column(0))
        size += chunks[-1].nbytes
        if size > MOST_GROUP_BYTES:
            raise ValueError(f"its images need more than {MOST_GROUP_BYTES:,} bytes")
    return pa.chunked_array(chunks)
