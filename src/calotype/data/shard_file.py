"""One Parquet shard on disk: there whole or not at all, and known for one of ours by its note.

Processes on several machines may write the same shard at a time: each has a name of its own for
what is unfinished.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import uuid
from pathlib import Path
from typing import Any

from calotype.data.columns import READ_ERRORS
from calotype.errors import CalotypeError, MissingExtra
from calotype.storage.files import sync_folder
from calotype.storage.reading import check_regular

NOTE_KEY = b"calotype"
"""Of the note, in a file's metadata, that says what the shard was made from."""

_UNFINISHED = re.compile(r".+\.parquet\.partial-[0-9a-f]{12}")
_STALE_SECONDS = 3600.0


def write_shard_file(path: Path, table: Any, **options: Any) -> None:
    """Write a table as a shard; `options` are those of pyarrow's `write_table`.

    Raises:
        CalotypeError: the disk is full, or the folder cannot be written to.
    """
    partial = path.with_name(f"{path.name}.partial-{uuid.uuid4().hex[:12]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:  # pyarrow itself opens no name that is not UTF-8
            pyarrow_parquet().write_table(table, file, **options)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as error:
        raise CalotypeError(
            f"cannot write {path} ({table.nbytes / 1e6:.0f} MB): {error.strerror}; free space or "
            "choose another --out, and run the command again: finished shards are kept"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def read_note(path: Path) -> dict[str, Any] | None:
    """The note in a shard of ours, with the number of its rows; None if it is none of ours."""
    parquet = pyarrow_parquet()
    try:
        check_regular(path)
        metadata = parquet.read_metadata(path)
        return {**json.loads(metadata.metadata[NOTE_KEY]), "rows": metadata.num_rows}
    except READ_ERRORS:
        return None


def remove_unfinished(folder: Path, *, start: str = "") -> None:
    """Remove what killed writers left; files touched in the last hour may be in use.

    Args:
        folder: of the shards.
        start: of the names of the shards.
    """
    for file in folder.glob(f"{start}*.parquet.partial-*"):
        with contextlib.suppress(OSError):
            old = time.time() - file.lstat().st_mtime > _STALE_SECONDS
            if old and file.is_file() and _UNFINISHED.fullmatch(file.name):
                file.unlink()


def pyarrow_parquet() -> Any:
    """The module.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("data", "pyarrow") from error
    return pyarrow.parquet
