"""What columns of a table mean: pictures, captions, splits, styles; shared by tabular sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calotype.data.captions import caption_variants
from calotype.data.example import Caption
from calotype.data.pictures import BrokenPicture
from calotype.data.source import SourceReport
from calotype.data.text import decode_text
from calotype.errors import UsageError

IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "png", "webp", "image_bytes")
TEXT_COLUMNS = ("text", "caption", "captions", "prompt", "description")
PARTS_COLUMNS = ("name", "keywords", "style")
STYLE_COLUMNS = ("style", "set")
DECIDING_COLUMNS = ("split", *STYLE_COLUMNS)
ROW_COLUMNS = ("key", "split", "set", *PARTS_COLUMNS, *TEXT_COLUMNS)


@dataclass(frozen=True)
class Selection:
    """Which rows of shards are examples, and how many captions each has.

    Args:
        split: value of the column `split`; None = all. Ignored where there is no such column.
        styles: values of the columns `style` or `set`; None = all.
        variants: captions made of caption parts.
    """

    split: str | None = "train"
    styles: tuple[str, ...] | None = None
    variants: int = 16


def has_styles(names: Sequence[str]) -> bool:
    """Whether a table with these columns says which style a row has."""
    return any(name in names for name in STYLE_COLUMNS)


def selected_rows(table: Any, length: int, selection: Selection) -> NDArray[np.bool_]:
    """(length,) which rows of a table with `DECIDING_COLUMNS` (those there are) are examples."""
    mask = np.ones(length, dtype=bool)
    names = table.column_names
    if selection.split is not None and "split" in names:
        mask &= np.array(table["split"].to_pylist(), dtype=object) == selection.split
    columns = [table[n].to_pylist() for n in STYLE_COLUMNS if n in names]
    if selection.styles is not None and columns:
        mask &= np.isin(np.array(columns).astype(str), selection.styles).any(axis=0)
    return mask


def row_captions(
    table: Any, number: int, key: str, *, variants: int, report: SourceReport
) -> tuple[Caption, ...]:
    """Captions of a row of a table that went through `texts_as_bytes`.

    A text column gives its texts; caption parts give `variants` captions.
    """
    names = table.column_names
    column = next((name for name in TEXT_COLUMNS if name in names), None)
    if column is None:
        name, keywords, style = (table[c][number].as_py() for c in PARTS_COLUMNS)
        return caption_variants(name, keywords, style, key=key, count=variants)
    value = table[column][number].as_py()
    captions = []
    for data in value if isinstance(value, list) else [value]:
        decoded = decode_text(data or b"")
        if decoded.replaced:
            report.replaced_captions.add(key)
        if decoded.text.strip():
            captions.append(Caption(decoded.text.strip()))
    if not captions:
        report.empty_captions.add(key)
    return tuple(captions)


def picture_cell(value: Any) -> bytes:
    """The encoded picture in a cell: a struct<bytes, path>, or bytes.

    Raises:
        BrokenPicture: there is none.
    """
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise BrokenPicture("has no picture bytes in its row")
    return data


def image_column(file: Path, names: Sequence[str]) -> str:
    """Name of the column of pictures.

    Raises:
        UsageError: there is none.
    """
    found = next((name for name in IMAGE_COLUMNS if name in names), None)
    if found is None:
        raise UsageError(
            f"got columns {list(names)} in {file}; expected pictures in one of "
            f"{list(IMAGE_COLUMNS)}"
        )
    return found


def texts_as_bytes(table: Any) -> Any:
    """The table with its text columns as bytes, which may be no UTF-8.

    Raises:
        UsageError: such a column holds something else.
    """
    import pyarrow as pa

    for name in set(TEXT_COLUMNS) & set(table.column_names):
        column = table[name]
        nested = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        leaf = column.type.value_type if nested else column.type
        kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_null)
        if not any(kind(leaf) for kind in kinds):
            raise UsageError(f"got captions of type {column.type} in column {name!r}; want text")
        as_bytes = column.cast(pa.list_(pa.large_binary()) if nested else pa.large_binary())
        table = table.set_column(table.column_names.index(name), name, as_bytes)
    return table


def check_captions(file: Path, names: Sequence[str]) -> None:
    """Refuse tables without captions: training would be unconditional without a word.

    Raises:
        UsageError: there is neither a text column nor all caption parts.
    """
    if not any(name in names for name in TEXT_COLUMNS) and not all(
        name in names for name in PARTS_COLUMNS
    ):
        raise UsageError(
            f"got columns {list(names)} in {file}; expected captions in one of "
            f"{list(TEXT_COLUMNS)}, which may be empty"
        )
