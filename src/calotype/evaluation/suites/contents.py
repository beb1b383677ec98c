"""The contents of a suite's file: its bytes once, as text or as JSON, and what is wrong with it."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from calotype.errors import UsageError
from calotype.storage.reading import read_regular

MOST_BYTES = 1_000_000_000
_ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_OUTLINES = ("segmentation", "bbox", "area")  # of COCO's instances: most of the file, never read


@dataclass(frozen=True)
class Contents:
    """A file as it was read.

    Args:
        path: of the file.
        data: its bytes.
    """

    path: Path
    data: bytes

    @cached_property
    def sha256(self) -> str:
        """Of the bytes, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def text(self) -> str:
        """The file as text: UTF-8, or what its byte-order mark says.

        Raises:
            UsageError: it is in another encoding.
        """
        encoding = next(
            (e for mark, e in _ENCODINGS.items() if self.data.startswith(mark)), "utf-8"
        )
        try:
            return self.data.decode(encoding)
        except UnicodeDecodeError as error:
            raise UsageError(
                f"{self.path} is not UTF-8 text: {error.reason} at byte "
                f"{error.start:,}; save it as UTF-8"
            ) from error

    def json(self) -> Any:
        """The file as JSON; outlines of objects are left out.

        Raises:
            UsageError: it is none.
        """
        return parse_json(self.text, f"{self.path}")


def read_contents(path: Path) -> Contents:
    """Read a file of prompts.

    Raises:
        UsageError: it cannot be read, or is huge.
    """
    try:
        return Contents(path, read_regular(path, most_bytes=MOST_BYTES))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {path}: {reason}; name a file of prompts") from error


def parse_json(text: str, where: str) -> Any:
    """JSON data; NaN and Infinity are refused, for no other program reads them.

    Raises:
        UsageError: it is none; `where` says what of.
    """
    try:
        return json.loads(text, object_hook=_without_outlines, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise UsageError(f"{where} is not valid JSON: {reason[:200]}") from error


def field_of(row: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The row's own name of the first of `names` (lower case) that it has; None = it has none."""
    own = {str(name).strip().lower(): name for name in reversed(list(row))}
    return next((own[name] for name in names if name in own), None)


def _without_outlines(record: dict[str, Any]) -> dict[str, Any]:
    for name in _OUTLINES:
        record.pop(name, None)
    return record


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"got {name}; expected finite numbers")
