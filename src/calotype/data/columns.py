"""What columns of a table mean: images, captions, splits, styles; shared by tabular sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calotype.data.grammar import CaptionGrammar
from calotype.data.images import BrokenImage
from calotype.data.labels import FOLDER
from calotype.errors import MissingExtra, UsageError

IMAGE_COLUMNS = ("image", "img", "picture", "jpg", "png", "webp", "image_bytes")
TEXT_COLUMNS = ("text", "caption", "captions", "prompt", "description")
PARTS_COLUMNS = ("name", "keywords", "style")
STYLE_COLUMNS = ("style", "set")
DECIDING_COLUMNS = ("split", *STYLE_COLUMNS)
_TEXTS = frozenset({"string", "large_string", "string_view", "null"})  # types' names in Arrow
_BYTES = frozenset({"binary", "large_binary", "binary_view", "null"})
ROW_COLUMNS = ("key", "split", "set", *PARTS_COLUMNS, *TEXT_COLUMNS)

READ_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    NotImplementedError,
    MemoryError,
)
"""What pyarrow raises for files that are damaged, or that it does not know."""


@dataclass(frozen=True)
class Selection:
    """Which rows of shards are examples, and how many captions each has.

    Args:
        split: value of the column `split`; None = all. Ignored where there is no such column.
        styles: values of the columns `style` or `set`; None = all.
        variants: captions made of caption parts.
        grammar: makes them; without one, rows must have captions.
        captioned: whether captions are wanted; tables without any are taken where they are not.
        labels: as in `DataConfig`.
    """

    split: str | None = "train"
    styles: tuple[str, ...] | None = None
    variants: int = 16
    grammar: CaptionGrammar | None = None
    captioned: bool = True
    labels: str | None = None

    @property
    def captions_version(self) -> int:
        """Part of the fingerprint of data with styles, whoever made their captions."""
        return 2 if self.grammar is None else self.grammar.version


def pyarrow() -> Any:
    """The package, with `pyarrow.parquet`.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("data", "pyarrow") from error
    return pyarrow


def has_styles(names: Sequence[str]) -> bool:
    """Whether a table with these columns says which style a row has."""
    return any(name in names for name in STYLE_COLUMNS)


def selected_rows(table: Any, length: int, selection: Selection) -> NDArray[np.bool_]:
    """(length,) which rows of a table with `DECIDING_COLUMNS` (those there are) are examples."""
    import pyarrow as pa

    mask = np.ones(length, dtype=bool)
    names = table.column_names
    if selection.split is not None and "split" in names:
        mask &= _is_in(table["split"], pa.array([selection.split]))
    columns = [table[name] for name in STYLE_COLUMNS if name in names]
    if selection.styles is not None and columns:
        styles = pa.array(selection.styles)
        mask &= np.any([_is_in(column, styles) for column in columns], axis=0)
    return mask


def _is_in(column: Any, values: Any) -> NDArray[np.bool_]:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = pc.is_in(column.cast(pa.large_string()), values.cast(pa.large_string()))
    return np.asarray(found.to_numpy(), dtype=bool)


def image_cell(value: Any) -> bytes:
    """The encoded image in a cell: a struct<bytes, path>, or bytes.

    Raises:
        BrokenImage: there is none.
    """
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise BrokenImage("has no image bytes in its row")
    return data


def reason_of(error: Exception) -> str:
    """One line of what pyarrow, or the system, says."""
    told = error.strerror if isinstance(error, OSError) else None
    return told or next(iter(str(error).splitlines()), type(error).__name__)


def image_column(names: Sequence[str]) -> str:
    """Name of the column of images, of those of a table that went through `check_columns`."""
    return next(name for name in IMAGE_COLUMNS if name in names)


def texts_as_bytes(table: Any) -> Any:
    """The table with its text columns as bytes, which may be no UTF-8."""
    import pyarrow as pa

    for name in set(TEXT_COLUMNS) & set(table.column_names):
        column = table[name]
        nested = _is_list(column.type)
        as_bytes = column.cast(pa.list_(pa.large_binary()) if nested else pa.large_binary())
        table = table.set_column(table.column_names.index(name), name, as_bytes)
    return table


def row_columns(names: Sequence[str], selection: Selection) -> list[str]:
    """The columns that are read of a table with these, beside images and what decides."""
    wanted = (*ROW_COLUMNS, *(() if selection.labels is None else (selection.labels,)))
    return [name for name in dict.fromkeys(wanted) if name in names]


def check_columns(file: Path, schema: Any, selection: Selection) -> None:
    """Refuse tables that have no images, captions or labels where they are looked for.

    Without captions training would be unconditional without a word.

    Raises:
        UsageError: a column is missing, there twice or of another type; the message names it.
    """
    names = schema.names
    if not any(name in names for name in IMAGE_COLUMNS):
        raise UsageError(
            f"got columns {list(names)} in {file}; expected images in one of {list(IMAGE_COLUMNS)}"
        )
    _check_labels(file, schema, selection.labels)
    has_text = any(name in names for name in TEXT_COLUMNS)
    if selection.captioned and not has_text and not all(name in names for name in PARTS_COLUMNS):
        raise UsageError(
            f"got columns {list(names)} in {file}; expected captions in one of "
            f"{list(TEXT_COLUMNS)}, which may be empty"
        )
    if selection.captioned and not has_text and selection.grammar is None:
        raise UsageError(
            f"got captions in parts, {list(PARTS_COLUMNS)}, in {file}; expected captions in one of "
            f"{list(TEXT_COLUMNS)}, or a grammar that makes them of these"
        )
    read = (image_column(names), *ROW_COLUMNS)
    for name in (name for name in dict.fromkeys(read) if name in names):
        if names.count(name) > 1:
            raise UsageError(f"got {names.count(name)} columns {name!r} in {file}; expected one")
        wanted = _wanted(name, schema.field(name).type, parts=not has_text)
        if wanted is not None:
            raise UsageError(
                f"got column {name!r} of type {schema.field(name).type} in {file}; "
                f"expected {wanted}"
            )


def _check_labels(file: Path, schema: Any, labels: str | None) -> None:
    """Refuse tables without the column of labels, or a column that names no classes."""
    names = schema.names
    if labels is None or (labels == FOLDER and "key" in names):
        return
    if labels not in names:
        what = "whose rows lie in no folders" if labels == FOLDER else "which has no such column"
        raise UsageError(
            f"got data.labels={labels!r} for {file}, {what}; expected one of its columns {names}"
        )
    kind = _leaf(schema.field(labels).type)
    if kind not in _TEXTS and not kind.lstrip("u").startswith("int"):
        raise UsageError(
            f"got data.labels={labels!r}, a column of type {schema.field(labels).type} in {file}; "
            "expected one of texts or whole numbers"
        )


def _wanted(name: str, kind: Any, *, parts: bool) -> str | None:
    """What a column should hold, if it is not of a type that it can be of."""
    fields = list(kind) if str(kind).startswith("struct") else []
    is_bytes = _leaf(kind) in _BYTES or str(kind).startswith("fixed_size_binary")
    is_text = _leaf(kind) in _TEXTS
    holds_texts = _is_list(kind) and _leaf(kind.value_type) in _TEXTS
    if name in IMAGE_COLUMNS:
        fits = is_bytes or any(field.name == "bytes" for field in fields)
        return None if fits else "bytes, or a struct of bytes and path"
    if name in TEXT_COLUMNS:
        holds_bytes = _is_list(kind) and _leaf(kind.value_type) in _BYTES
        fits = is_text or holds_texts or is_bytes or holds_bytes
        return None if fits else "a text or a list of texts"
    if parts and name == "keywords":
        return None if holds_texts or _leaf(kind) == "null" else "a list of texts"
    if parts and name in PARTS_COLUMNS:
        return None if is_text else "a text"
    return "a text" if name in DECIDING_COLUMNS and (fields or _is_list(kind)) else None


def _leaf(kind: Any) -> str:
    """Name of a type; of a dictionary (pandas calls it categorical) that of its values."""
    return str(kind.value_type if hasattr(kind, "index_type") else kind)


def _is_list(kind: Any) -> bool:
    return hasattr(kind, "value_field") and not hasattr(kind, "key_type")
