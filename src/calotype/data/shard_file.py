"""One Parquet shard on disk: there whole or not at all, and known for one of ours by its note."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from calotype.data.columns import READ_ERRORS, pyarrow
from calotype.storage.files import make_folder, write_with
from calotype.storage.reading import check_regular

NOTE_KEY = b"calotype"
"""Of the note, in a file's metadata, that says what the shard was made from."""


def write_shard_file(path: Path, table: Any, **options: Any) -> None:
    """Write a table as a shard; `options` are those of pyarrow's `write_table`.

    Raises:
        CalotypeError: the disk is full, or the folder cannot be written to.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:  # pyarrow itself opens no name that is not UTF-8
            pyarrow().parquet.write_table(table, file, **options)

    make_folder(path.parent)
    size = f"{table.nbytes / 1e6:.0f} MB needed"
    write_with(path, write, state=f"{size}; finished shards are kept: run the command again")


def read_note(path: Path) -> dict[str, Any] | None:
    """The note in a shard of ours, with the number of its rows; None if it is none of ours."""
    parquet = pyarrow().parquet
    try:
        check_regular(path)
        metadata = parquet.read_metadata(path)
        return {**json.loads(metadata.metadata[NOTE_KEY]), "rows": metadata.num_rows}
    except READ_ERRORS:
        return None
