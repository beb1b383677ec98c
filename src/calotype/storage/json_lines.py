"""Logs as JSON lines: appended to, read while they grow, cut back to an earlier line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from calotype.errors import CalotypeError
from calotype.storage.files import is_full, write_file
from calotype.storage.reading import open_regular


class JsonLines:
    """An append-only log.

    Args:
        path: the file; it is made when it does not exist.
        way_out: what to do about a full disk, for messages.
    """

    def __init__(self, path: Path, *, way_out: str = "write elsewhere") -> None:
        self.path = path
        self._way_out = way_out
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        """Add a line and hand it to the system, so that a killed process loses nothing."""
        text = json.dumps(_legal(line)) + "\n"
        with self._one_line_errors(needed=len(text)):
            self._file.write(text)
            self._file.flush()

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        with self._one_line_errors():
            self._file.flush()
            os.fsync(self._file.fileno())

    def cut_back(self, field: str, most: float) -> None:
        """Drop all lines with more than `most` in a field, and go on behind them."""
        self.close()
        cut_back(self.path, field, most)
        self._file = self.path.open("a", encoding="utf-8")

    def close(self) -> None:
        """Close the file."""
        with self._one_line_errors():
            self._file.close()

    @contextmanager
    def _one_line_errors(self, *, needed: int = 0) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            room = f" ({needed} bytes needed)" if needed and is_full(error) else ""
            raise CalotypeError(
                f"cannot write {self.path}: {error.strerror}{room}; {self._way_out}"
            ) from error


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects in a file of JSON lines; lines that hold none, or half of one, are passed over.

    Raises:
        OSError: as `open_regular`.
    """
    with open_regular(path) as file:
        for text in file:
            if (line := _parsed(text)) is not None:
                yield line


def cut_back(path: Path, field: str, most: float) -> int:
    """Drop all lines with more than `most` in a field, and lines that were not finished.

    Returns:
        The number of lines dropped. The file is replaced in one step.
    """
    if not path.exists():
        return 0
    with open_regular(path) as file:
        lines = file.readlines()
    kept = [line for line in lines if line.endswith(b"\n") and _number(line, field) <= most]
    if len(kept) < len(lines):
        write_file(path, b"".join(kept))
    return len(lines) - len(kept)


def _number(text: bytes, field: str) -> float:
    """A field of a line; infinite where there is none."""
    try:
        return float((_parsed(text) or {})[field])
    except (ValueError, KeyError, TypeError, OverflowError):
        return math.inf


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


def _legal(value: Any) -> Any:
    # JSON has no nan and no infinity.
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _legal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_legal(item) for item in value]
    return value
