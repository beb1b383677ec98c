"""Rows of `metadata.jsonl` and `metadata.csv`: names of images and what they show.

Hugging Face's layout: `file_name`, relative to the file's folder, and `text` or `caption`; in
JSON a list is several captions of one image.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.data.labels import label_text
from calotype.data.text import DecodedText, decode_text, has_replacement
from calotype.storage.reading import read_regular

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
TEXT_FIELDS = ("text", "caption", "captions", "prompt")

MAX_METADATA_BYTES = 2_000_000_000
"""More is refused before it is read: it is held in memory."""

_MAX_FIELD_CHARACTERS = 100_000_000


@dataclass(frozen=True)
class MetadataRow:
    """One row: where it is, the image's name and captions; `reason` says what is wrong with it.

    Args:
        line: number of its last line, from 1; of the first one of what cannot be read.
        name: of the image, as it is written.
        texts: captions; empty ones as well; None = the row has no field of them.
        label: name of the image's class, where it is wanted and said.
        replaced: they were no UTF-8.
        reason: why the row cannot be used; None = it can.
    """

    line: int
    name: str = ""
    texts: tuple[str, ...] | None = None
    label: str | None = None
    replaced: bool = False
    reason: str | None = None


def read_metadata(file: Path, *, labels: str | None = None) -> Iterator[MetadataRow]:
    """The rows of a metadata file; a file that cannot be read is one bad row, of line 0.

    Args:
        file: JSON lines or CSV.
        labels: the field of class names; a row that has it needs no captions.
    """
    try:
        text = decode_text(read_regular(file, most_bytes=MAX_METADATA_BYTES))
    except OSError as error:
        yield MetadataRow(0, reason=f"cannot be read: {error.strerror}")
        return
    rows = _jsonl_rows if file.suffix == ".jsonl" else _csv_rows
    yield from rows(text, labels)


def _jsonl_rows(text: DecodedText, labels: str | None) -> Iterator[MetadataRow]:
    for number, line in enumerate(io.StringIO(text.text), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield MetadataRow(number, reason=f"is no JSON: {error}")
            continue
        if isinstance(values, dict):
            replaced = text.replaced and has_replacement(line)
            yield _row(number, values, labels, replaced=replaced)
        else:
            yield MetadataRow(number, reason="is no JSON object")


def _csv_rows(text: DecodedText, labels: str | None) -> Iterator[MetadataRow]:
    # The module's default refuses fields above 128 KiB; long captions are legal here.
    csv.field_size_limit(min(_MAX_FIELD_CHARACTERS, sys.maxsize))
    # Strict: else a stray quote swallows the lines after it without a word.
    lines = csv.reader(io.StringIO(text.text, newline=""), strict=True)
    columns: list[str] | None = None
    while True:
        reached = lines.line_num
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as error:
            lost = lines.line_num - reached
            reason = f"is no CSV: {error}; {lost} lines are lost, perhaps by a stray quote"
            yield MetadataRow(reached + 1, reason=reason)
            continue
        if columns is None:
            columns = cells
        elif cells:
            replaced = text.replaced and any(map(has_replacement, cells))
            values = dict(zip(columns, cells, strict=False))
            yield _row(lines.line_num, values, labels, replaced=replaced)


def _row(line: int, values: dict[Any, Any], labels: str | None, *, replaced: bool) -> MetadataRow:
    name = values.get("file_name")
    if not isinstance(name, str) or not name:
        return MetadataRow(line, reason="has no file_name")
    field = next((field for field in TEXT_FIELDS if field in values), None)
    label = None if labels is None else label_text(values.get(labels))
    if field is None and label is not None:
        return MetadataRow(line, name, label=label)
    if field is None:
        return MetadataRow(line, reason=f"has none of {', '.join(TEXT_FIELDS)}")
    value = values[field]
    texts = value if isinstance(value, list) else [value]
    told = tuple(str(text).strip() for text in texts if text is not None)
    return MetadataRow(line, name, told, label, replaced)
