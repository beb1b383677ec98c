"""A suite: captions in a fixed order, each with an id, and what was chosen when it was made.

Every choice that moves a number (which captions, how many, from which images) is kept in
`Suite.choices`, and results print them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from calotype.errors import UsageError

LONGEST_CAPTION = 100_000
"""Characters; longer ones are refused: no encoder reads more than some hundred words."""


_LONGEST_NAME = 200
_IMPOSSIBLE = re.compile("[\0\ud800-\udfff]")  # NUL, and surrogates: no UTF-8 has them
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class Prompt:
    """A caption to sample images of.

    Args:
        id: unique within the suite; the same whenever the file is read.
        caption: as the suite writes it.
        category: that the suite puts it in.
        facts: what else the suite says of it: questions, objects, ratings; JSON values.
    """

    id: str
    caption: str
    category: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Suite:
    """Captions in the order of their file.

    Args:
        name: shown with every number.
        prompts: at least one.
        sha256: of the file or files it was read from.
        choices: what was decided when it was made, and moves numbers; JSON values.

    Raises:
        UsageError: no prompts, an id twice, or a caption that cannot be used.
    """

    name: str
    prompts: tuple[Prompt, ...]
    sha256: str
    choices: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= _LONGEST_NAME or _CONTROL.search(self.name):
            raise UsageError(
                f"got a suite's name of {len(self.name)} characters, {self.name[:80]!r}; expected "
                f"1 to {_LONGEST_NAME}, none of them a control character"
            )
        if not self.prompts:
            raise UsageError(f"the suite {self.name!r} has no prompts; expected at least one")
        for prompt in self.prompts:
            _check_prompt(self.name, prompt)
        (id_, count) = Counter(prompt.id for prompt in self.prompts).most_common(1)[0]
        if count > 1:
            raise UsageError(
                f"the suite {self.name!r} has {count} prompts with the id {id_[:80]!r}; expected "
                "an id of its own for each"
            )

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories in the order in which they first occur."""
        return tuple(dict.fromkeys(p.category for p in self.prompts if p.category is not None))

    @property
    def captions(self) -> tuple[str, ...]:
        """The captions; equal ones are prompts of their own."""
        return tuple(prompt.caption for prompt in self.prompts)


def subset(suite: Suite, count: int | None) -> Suite:
    """The `count` prompts whose ids' hashes are smallest, in the suite's order; None = all.

    A larger subset holds every smaller one. The name and the choices say that it is one.

    Raises:
        UsageError: not 1 to the number of prompts.
    """
    total = len(suite.prompts)
    if count is None or count == total:
        return suite
    if not 1 <= count <= total:
        raise UsageError(
            f"got {count:,} prompts of the suite {suite.name!r}; expected 1 to {total:,}"
        )
    kept = set(first_by_hash((prompt.id for prompt in suite.prompts), count))
    return dataclasses.replace(
        suite,
        name=f"{suite.name}, {count} of {total} prompts",
        prompts=tuple(prompt for prompt in suite.prompts if prompt.id in kept),
        choices={**suite.choices, "prompts": f"{count} of {total}, first by SHA-256 of the id"},
    )


def first_by_hash(ids: Iterable[str], count: int) -> list[str]:
    """The `count` ids with the smallest hashes, in that order, whatever order they come in."""
    return sorted(ids, key=lambda id_: (id_hash(id_), id_))[:count]


def row_id(row: int) -> str:
    """The id of a row that has none of its own, counted from 0; as GenEval's folders are named."""
    return f"{row:05d}"


def id_hash(text: str) -> str:
    """The SHA-256 of a text in hexadecimal; an even, lasting order of ids."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _check_prompt(name: str, prompt: Prompt) -> None:
    """Refuse what no run could use, write or print.

    Raises:
        UsageError: an empty or huge caption, NUL, or half of a surrogate pair.
    """
    where = f"prompt {prompt.id[:80]!r} of the suite {name!r}"
    if not prompt.caption.strip():
        raise UsageError(f"{where} is empty; expected a caption, or no such line")
    category = prompt.category or ""
    for what, text in (("id", prompt.id), ("caption", prompt.caption), ("category", category)):
        if len(text) > LONGEST_CAPTION:
            raise UsageError(
                f"{where}: got {len(text):,} characters as {what}; expected at most "
                f"{LONGEST_CAPTION:,}: is this a file of prompts?"
            )
        if _IMPOSSIBLE.search(text):
            raise UsageError(
                f"{where}: got a NUL or half of a surrogate pair in its {what}, which no file can "
                "hold; remove it"
            )
