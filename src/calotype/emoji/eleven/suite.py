"""The installed file of emoji-11, and how it is made from the set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

from calotype.emoji.eleven.choice import A_CATEGORY, CAPTIONS_TRAINED, CATEGORIES, choose
from calotype.emoji.gallery import read_rows
from calotype.emoji.prompts import ImageRow
from calotype.errors import UsageError
from calotype.evaluation.suites.suite import Prompt, Suite
from calotype.storage.files import write_file

NAME = "emoji-11"


def emoji_suite() -> Suite:
    """The prompts that are installed with the package."""
    data = (resources.files("calotype") / "configs" / "emoji_11.json").read_bytes()
    read = json.loads(data)
    prompts = tuple(Prompt(**prompt) for prompt in read["prompts"])
    return Suite(read["name"], prompts, sha256(data).hexdigest(), read["choices"])


def suite_file(rows: Sequence[ImageRow]) -> str:
    """The file of the prompts that are chosen from some rows, one prompt a line.

    Raises:
        UsageError: a category has too few.
    """
    prompts = choose(rows)
    for category in CATEGORIES:
        found = sum(prompt.category == category for prompt in prompts)
        if found < A_CATEGORY:
            raise UsageError(
                f"got {found} prompts for {category!r}, expected {A_CATEGORY}; make the whole set "
                "with: calotype data emoji"
            )
    head: dict[str, Any] = {
        "name": NAME,
        "choices": {
            "prompts of a category": A_CATEGORY,
            "chosen by": "SHA-256 of category and key, one row of a concept",
            "captions an image in training": CAPTIONS_TRAINED,
            "rows": _fingerprint(rows),
        },
    }
    lines = ",\n".join(
        "  " + json.dumps(asdict(prompt), ensure_ascii=False, sort_keys=False) for prompt in prompts
    )
    text = json.dumps(head, ensure_ascii=False, indent=1).removesuffix("\n}")
    return f'{text},\n "prompts": [\n{lines}\n ]\n}}\n'


def write_suite(data: Path, out: Path) -> None:
    """Choose the prompts from a set's folder and write them.

    Raises:
        UsageError: there is no such set, or too little of it.
    """
    write_file(out, suite_file(read_rows(data)).encode())


def _fingerprint(rows: Sequence[ImageRow]) -> str:
    """The SHA-256 of what the choice depends on."""
    lines = sorted(
        "\x1f".join((row.key, row.name, row.concept, row.style, row.split, row.group, *words))
        for row in rows
        for words in [row.keywords]
    )
    return sha256("\n".join(lines).encode()).hexdigest()
