"""What rows of a table say, in whichever kind of file the table lies."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any

from calotype.data.columns import PARTS_COLUMNS, TEXT_COLUMNS, Selection
from calotype.data.example import Caption
from calotype.data.labels import label_text, named_numbers
from calotype.data.source import EncodedSource
from calotype.data.text import decode_caption


class TableSource(EncodedSource):
    """Selected rows of tables as examples.

    Args:
        selection: which rows.
        has_splits: whether there is a column that says of which split a row is.
        has_styles: whether one says which style it has.
    """

    selection: Selection
    has_splits = False
    has_styles = False

    @property
    def captions_version(self) -> int | None:
        """Of the selection, where rows have styles."""
        return self.selection.captions_version if self.has_styles else None

    @abstractmethod
    def _row(self, index: int) -> tuple[Any, int]:
        """A table that went through `texts_as_bytes`, and the row of an example in it."""

    @abstractmethod
    def _place(self, index: int) -> str:
        """The key of an example that has none in a column: where it lies."""

    def key(self, index: int) -> str:
        """The column `key`, or where the row lies."""
        table, number = self._row(index)
        named = table["key"][number].as_py() if "key" in table.column_names else None
        return self._place(index) if named is None else str(named)

    def label(self, index: int) -> str | None:
        """What the column of labels says, numbers by their names where the file has them."""
        labels = self.selection.labels
        if labels is None:
            return None
        table, number = self._row(index)
        if labels not in table.column_names:  # folders, then
            folder = self.key(index).rpartition("/")[0]
            return label_text(folder.rpartition("/")[2])
        value = table[labels][number].as_py()
        names = named_numbers((table.schema.metadata or {}).get(b"huggingface"), labels)
        if names is not None and isinstance(value, int):
            value = names[value] if 0 <= value < len(names) else None
        return label_text(value)

    def captions(self, index: int) -> tuple[Caption, ...]:
        """Captions of a row.

        A text column gives its texts; caption parts give as many captions as the selection says.
        """
        table, number = self._row(index)
        key, grammar = self.key(index), self.selection.grammar
        column = next((name for name in TEXT_COLUMNS if name in table.column_names), None)
        if column is None and (
            grammar is None or not set(PARTS_COLUMNS) <= set(table.column_names)
        ):
            return ()  # nobody wants any: see `check_columns`
        if column is None and grammar is not None:
            name, keywords, style = (table[c][number].as_py() for c in PARTS_COLUMNS)
            if not (name or "").strip():
                self.report.empty_captions.add(key)
                return ()
            words = [word for word in keywords or () if word is not None]
            count = self.selection.variants
            captions = grammar.make(name, words, style or "", key=key, count=count)
            return tuple(replace(caption, concept=name) for caption in captions)
        value = table[column][number].as_py()
        texts = []
        for data in value if isinstance(value, list) else [value]:
            decoded = decode_caption(data or b"")
            if decoded.replaced:
                self.report.replaced_captions.add(key)
            if decoded.text.strip():
                texts.append(Caption(decoded.text.strip()))
        if not texts:
            self.report.empty_captions.add(key)
        return tuple(texts)
