"""Data sets that Hugging Face's `datasets` saved to disk, read with pyarrow alone.

`Dataset.save_to_disk` writes Arrow stream files and a `state.json` that lists them, with the row
numbers of a selection or shuffle that was not flattened; `DatasetDict.save_to_disk` writes one
such folder a split. The files are mapped, so memory does not grow with the set.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from calotype.data.source import SourceReport
from calotype.data.table import TableSource
from calotype.errors import CalotypeError, UsageError
from calotype.storage.reading import check_regular, read_regular

STATE_NAME = "state.json"
_LARGEST_STATE = 100_000_000


def saved_dataset_folder(path: Path, split: str = "train") -> Path | None:
    """The folder of one split of a data set saved to disk; None if there is none at `path`.

    Raises:
        UsageError: it has splits, and not this one.
    """
    if (path / STATE_NAME).is_file() and any(path.glob("*.arrow")):
        return path
    if not (path / "dataset_dict.json").is_file():
        return None
    if not (path / split / STATE_NAME).is_file():
        found = sorted(folder.name for folder in path.iterdir() if folder.is_dir())
        raise UsageError(f"got splits {found} in {path}; expected {split!r}; give one's folder")
    return path / split


class SavedDatasetSource(TableSource):
    """Rows of a data set saved to disk."""

    def __init__(self, root: Path, selection: Selection) -> None:
        """Map the files.

        Raises:
            MissingExtra: pyarrow is not installed.
            UsageError: the files cannot be read or lack a column.
        """
        self.root = root
        self.selection = selection
        self.report = SourceReport()
        try:
            state = json.loads(read_regular(root / STATE_NAME, most_bytes=_LARGEST_STATE))
            files, tables = _read(root, state["_data_files"])
            _, chosen = _read(root, state.get("_indices_data_files") or ())
            table = pyarrow().concat_tables(tables)
            rows = np.arange(table.num_rows)
            if chosen:
                numbers = pyarrow().concat_tables(chosen).column(0)
                rows = numbers.to_numpy().astype(np.int64)
            if len(rows) and not 0 <= rows.min() <= rows.max() < table.num_rows:
                raise ValueError(f"it chooses rows beyond its {table.num_rows:,}")
        except READ_ERRORS as error:
            raise UsageError(
                f"cannot read {root} as a data set saved to disk: {reason_of(error)}; save it again"
            ) from error
        names = table.column_names
        check_columns(root, table.schema, selection)
        self.has_splits = "split" in names
        self.has_styles = has_styles(names)
        self._ends = np.cumsum([len(part) for part in tables])
        self.files = (*files, root / STATE_NAME)
        self._sizes = [file.stat().st_size for file in self.files]
        self._images = table[image_column(names)]
        self._texts = texts_as_bytes(table.select(row_columns(names, selection)))
        deciding = table.select([n for n in DECIDING_COLUMNS if n in names])
        mask = selected_rows(deciding, table.num_rows, selection)
        self._rows = rows if mask.all() else rows[mask[rows]]

    def __len__(self) -> int:
        return len(self._rows)

    def _row(self, index: int) -> tuple[Any, int]:
        row = int(self._rows[index])
        self._check_unchanged(row)
        return self._texts, row

    def _place(self, index: int) -> str:
        return f"row:{int(self._rows[index])}"

    def image_bytes(self, index: int) -> bytes:
        """The encoded image of a row; raises `BrokenImage`."""
        row = int(self._rows[index])
        self._check_unchanged(row)
        return image_cell(self._images[row].as_py())

    def _check_unchanged(self, row: int) -> None:
        """Reading a mapped file that was cut short would end the process without a word."""
        number = int(np.searchsorted(self._ends, row, side="right"))
        file = self.files[number]
        try:
            size = file.stat().st_size
        except OSError:
            size = -1
        if size != self._sizes[number]:
            raise CalotypeError(f"{file} changed under the run; put it back, or start anew")


def _read(root: Path, entries: Sequence[Any]) -> tuple[list[Path], list[Any]]:
    """The files of a list in the state, which lie in the same folder, and their tables, mapped."""
    pa = pyarrow()
    files = [root / Path(entry["filename"]).name for entry in entries]
    tables = []
    for file in files:
        if not file.is_file():
            raise CalotypeError(f"{file} is missing; save the data set again")
        check_regular(file)
        tables.append(pa.ipc.open_stream(pa.memory_map(str(file))).read_all())
    return files, tables
