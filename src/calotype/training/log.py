"""Logs as JSON lines: one line a step, cut back to the checkpoint when a run is resumed."""

from __future__ import annotations

import errno
import io
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from calotype.errors import CalotypeError
from calotype.storage.files import write_file
from calotype.storage.reading import open_regular


class JsonLines:
    """An append-only log; every line holds `images`, the images seen over all stages.

    Args:
        path: the file; it is made when it does not exist.
    """

    def __init__(self, path: Path) -> None:
        """Open for appending."""
        self.path = path
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

    def cut_back(self, images: int) -> None:
        """Drop all lines after `images` images, and go on behind them."""
        self.close()
        cut_back(self.path, images)
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
            full = needed and error.errno in (errno.ENOSPC, errno.EDQUOT)
            room = f" ({needed} bytes needed, and room for checkpoints)" if full else ""
            raise CalotypeError(
                f"cannot write {self.path}: {error.strerror}{room}; the last checkpoint is whole: "
                "mend the disk and go on with --resume"
            ) from error


def cut_back(path: Path, images: int) -> int:
    """Drop all lines after `images` images, and lines that were not finished.

    Returns:
        The number of lines dropped. The file is replaced in one step.
    """
    if not path.exists():
        return 0
    kept, dropped = [], 0
    with io.TextIOWrapper(open_regular(path), encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.endswith("\n") and _images(line) <= images:
                kept.append(line)
            else:
                dropped += 1
    if dropped:
        write_file(path, "".join(kept).encode())
    return dropped


def _images(line: str) -> float:
    try:
        return float(json.loads(line)["images"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf


def _legal(value: Any) -> Any:
    # JSON has no nan and no infinity.
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _legal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_legal(item) for item in value]
    return value
