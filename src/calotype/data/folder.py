"""A plain folder of pictures, with captions beside them.

Pictures are found in all subfolders. A caption is the text file of the same name (`fox.png`,
`fox.txt`), or a row of `metadata.jsonl` or `metadata.csv` in the picture's folder or one above,
with `file_name` relative to that folder and `text` or `caption` (in JSON a list is several
captions). A picture without a caption trains as unconditional.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from calotype.data.example import Caption, Example
from calotype.data.fingerprint import files_fingerprint
from calotype.data.pictures import SUFFIXES, BrokenPicture, decode_picture
from calotype.data.source import SourceReport
from calotype.data.text import decode_text

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
TEXT_FIELDS = ("text", "caption", "captions", "prompt")

_MAX_FIELD_CHARACTERS = 100_000_000


class FolderSource:
    """Pictures of a folder in the order of their names."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.report = SourceReport()
        self._names, self._metadata_files = _list_folder(root)
        self._texts: dict[str, tuple[str, ...]] = {}
        for file in self._metadata_files:
            self._read_metadata(file)
        # Pictures that metadata name and that are not there are counted as broken, not forgotten.
        missing = sorted(self._texts.keys() - set(self._names))
        self._names.extend(missing)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names and sizes of pictures, text files and metadata."""
        pictures = [self.root / name for name in self._names]
        texts = [text for p in pictures if (text := p.with_suffix(".txt")).exists()]
        return files_fingerprint(self.root, {*pictures, *texts, *self._metadata_files})

    def __len__(self) -> int:
        """Count of pictures, broken ones included."""
        return len(self._names)

    def __getitem__(self, index: int) -> Example:
        """Example number `index`, decoded.

        Raises:
            BrokenPicture: its picture cannot be read.
        """
        image = decode_picture(self.picture_bytes(index))
        return Example(self.key(index), image, self.captions(index))

    def key(self, index: int) -> str:
        """Path of the picture in the folder, with forward slashes."""
        return self._names[index]

    def picture_bytes(self, index: int) -> bytes:
        """The encoded picture.

        Raises:
            BrokenPicture: the file cannot be read.
        """
        try:
            return (self.root / self._names[index]).read_bytes()
        except OSError as error:
            raise BrokenPicture(f"cannot be read: {error.strerror}") from error

    def captions(self, index: int) -> tuple[Caption, ...]:
        """From metadata where it names the picture, else from the text file beside it."""
        name = self._names[index]
        texts = self._texts.get(name)
        if texts is None:
            texts = self._text_file(name)
        captions = tuple(Caption(text) for text in texts if text)
        if not captions:
            self.report.empty_captions.add(name)
        return captions

    def _text_file(self, name: str) -> tuple[str, ...]:
        try:
            data = (self.root / name).with_suffix(".txt").read_bytes()
        except OSError:
            return ()
        text = decode_text(data)
        if text.replaced:
            self.report.replaced_captions.add(name)
        return (text.text.strip(),)

    def _read_metadata(self, file: Path) -> None:
        rows = _jsonl_rows(file) if file.suffix == ".jsonl" else _csv_rows(file)
        folder = file.parent.relative_to(self.root)
        for row in rows:
            place = f"{file.relative_to(self.root).as_posix()}:{row.line}"
            name = row.values.get("file_name")
            if row.reason is not None or not isinstance(name, str):
                self.report.bad_metadata[place] = row.reason or "has no file_name"
                continue
            key = os.path.normpath((folder / name).as_posix()).replace(os.sep, "/")
            if key.startswith("../") or os.path.isabs(key):
                self.report.bad_metadata[place] = f"names {name!r}, outside the folder"
                continue
            value: Any = next((row.values[f] for f in TEXT_FIELDS if f in row.values), "")
            texts = value if isinstance(value, list) else [value]
            self._texts[key] = tuple(str(t).strip() for t in texts if t is not None)
            if row.replaced:
                self.report.replaced_captions.add(key)


@dataclass(frozen=True)
class _Row:
    line: int
    values: dict[str, Any]
    replaced: bool = False
    reason: str | None = None


def _list_folder(root: Path) -> tuple[list[str], list[Path]]:
    """Names of pictures relative to the root, and metadata files, both sorted."""
    pictures: list[str] = []
    metadata: list[Path] = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                pictures.append(path.relative_to(root).as_posix())
            elif name in METADATA_NAMES:
                metadata.append(path)
    return sorted(pictures), sorted(metadata)


def _jsonl_rows(file: Path) -> Iterator[_Row]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            text = decode_text(line)
            if not text.text.strip():
                continue
            try:
                values = json.loads(text.text)
            except (ValueError, RecursionError) as error:
                yield _Row(number, {}, reason=f"is no JSON: {error}")
                continue
            if isinstance(values, dict):
                yield _Row(number, values, text.replaced)
            else:
                yield _Row(number, {}, reason="is no JSON object")


def _csv_rows(file: Path) -> Iterator[_Row]:
    text = decode_text(file.read_bytes())
    # The module's default refuses fields above 128 KiB; long captions are legal here.
    csv.field_size_limit(min(_MAX_FIELD_CHARACTERS, sys.maxsize))
    reader = csv.DictReader(io.StringIO(text.text.replace("\0", ""), newline=""))
    try:
        for row in reader:
            values = {key: value for key, value in row.items() if key is not None}
            replaced = text.replaced and any("�" in str(value) for value in values.values())
            yield _Row(reader.line_num, values, replaced)
    except csv.Error as error:
        yield _Row(reader.line_num, {}, reason=f"is no CSV: {error}")
