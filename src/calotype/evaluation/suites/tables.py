"""Suites that are tables with a header: DrawBench, PartiPrompts, DSG.

- DrawBench (Saharia et al. 2022, appendix C, arXiv:2205.11487): CSV, `Prompts` or `Prompt`, and
  `Category`.
- PartiPrompts (Yu et al. 2022, arXiv:2206.10789): `Prompt`, `Category`, `Challenge`, `Note`,
  separated by tabs; quotation marks are part of the prompt.
- DSG-1k (Cho et al. 2024, arXiv:2310.18235; `dsg-1k-anns.csv`): a row a question, with `item_id`,
  `text`, `proposition_id`, `dependency`, `question_natural_language`. DPG-Bench has the same form.

Other tables with such columns are read, too; columns without a meaning here are facts.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Literal

from calotype.errors import UsageError
from calotype.evaluation.suites.contents import Contents, field_of
from calotype.evaluation.suites.questions import prompts_of_questions
from calotype.evaluation.suites.suite import Prompt, row_id

CAPTION = ("prompt", "prompts", "caption", "captions", "text")
CATEGORY = ("category", "categories", "tag")
ID = ("item_id", "prompt_id", "id")
QUESTION = "question_natural_language"
# Where DSG's prompts come from and what it calls them (`get_data_category` of its `data_utils.py`).
_DSG_CATEGORIES = {
    "tifa": "tifa", "stanford": "paragraph", "localized": "paragraph", "countbench": "count",
    "vrd": "relation", "diffusion": "real_user", "midjourney": "real_user", "posescript": "pose",
    "whoops": "defying", "drawtext": "text",
}  # fmt: skip


def looks_like_table(text: str) -> bool:
    """Whether the first line is a header that names captions."""
    header = text.partition("\n")[0]
    names = next(csv.reader([header], delimiter=_delimiter(header)), [])
    return len(names) > 1 and field_of(dict.fromkeys(names), CAPTION) is not None


def read_table(contents: Contents) -> tuple[Prompt, ...]:
    """The prompts of a table.

    Raises:
        UsageError: no column of captions, a row of another length, or a quotation mark too few.
    """
    rows = list(_rows(contents))
    header = rows[0] if rows else {}
    caption = field_of(header, CAPTION)
    if caption is None:
        raise UsageError(
            f"{contents.path}: got the columns {', '.join(header)[:200] or 'of no row'}; expected "
            f"one of {', '.join(CAPTION)} and rows below it"
        )
    identity, category = field_of(header, ID), field_of(header, CATEGORY)
    if QUESTION in header and identity is not None:
        return prompts_of_questions(
            ((row[identity], row[caption], _others(row, identity, caption)) for row in rows),
            category=_dsg_category,
        )
    return tuple(
        Prompt(
            row_id(number) if identity is None else row[identity],
            row[caption],
            (row[category].strip() or None) if category is not None else None,
            _others(row, identity, caption, category),
        )
        for number, row in enumerate(rows)
    )


def _rows(contents: Contents) -> Iterator[dict[str, str]]:
    text = contents.text
    delimiter = _delimiter(text.partition("\n")[0])
    # PartiPrompts' quotation marks quote nothing; a table of commas needs them.
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True
    )
    try:
        for row in reader:
            width = len(reader.fieldnames or ())
            got = sum(value is not None for value in row.values()) + len(row.get(None) or ())
            if None in row or None in row.values():
                got -= None in row
                raise UsageError(
                    f"{contents.path}, line {reader.line_num}: got {got} fields; expected {width}: "
                    "a caption that holds a comma stands in quotation marks"
                )
            yield row
    except csv.Error as error:
        raise UsageError(f"{contents.path}, after line {reader.line_num}: {error}") from error


def _delimiter(header: str) -> str:
    return max("\t,;", key=header.count)


def _others(row: dict[str, str], *used: str | None) -> dict[str, str]:
    return {name: value for name, value in row.items() if name not in used and value}


def _dsg_category(identity: str) -> str | None:
    return next((name for mark, name in _DSG_CATEGORIES.items() if mark in identity), None)
