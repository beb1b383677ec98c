"""Choose the fixed prompts that every trained default is judged by, by hash and not by eye."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Literal, get_args

from calotype.emoji.captions import ALWAYS_SAID, BACKGROUND_COLOURS, on_background, spoken
from calotype.emoji.recipe import Split

PromptGroup = Literal["trained_pair", "unseen_pair", "background", "bare_name"]
COUNTS: dict[PromptGroup, int] = dict.fromkeys(get_args(PromptGroup), 64)


@dataclass(frozen=True)
class ImageRow:
    """What the set says of one image; see the data card for the columns."""

    key: str
    name: str
    style: str
    set: str
    license: str
    concept: str
    split: Split
    keywords: tuple[str, ...] = ()
    group: str = ""

    @property
    def caption(self) -> str:
        """The plainest of its captions."""
        return f"{self.name}, {self.style}"


@dataclass(frozen=True)
class EvaluationPrompt:
    """A prompt, the key of the real image it is compared with, and the colour it asks for."""

    group: PromptGroup
    key: str
    prompt: str
    background: tuple[int, int, int] | None = None


def choose_prompts(
    rows: Iterable[ImageRow], counts: Mapping[PromptGroup, int] = COUNTS
) -> list[EvaluationPrompt]:
    """Trained pairs, unseen pairs, further trained pairs on a colour, and bare names of others.

    Within a split the rows with the smallest sha256 of their key are taken, so the choice depends
    on the keys alone, and not on their order. Bare names are of images in the style that captions
    may leave out. `counts` are prompts of each group, where other numbers are wanted.
    """
    ordered = sorted(rows, key=lambda row: _digest(row.key))
    trained = [row for row in ordered if row.split == "train"]
    unseen = [row for row in ordered if row.split == "unseen_pair"]
    first = counts["trained_pair"]
    prompts = [EvaluationPrompt("trained_pair", r.key, r.caption) for r in trained[:first]]
    prompts += [
        EvaluationPrompt("unseen_pair", r.key, r.caption) for r in unseen[: counts["unseen_pair"]]
    ]
    second = first + counts["background"]
    prompts += [_coloured(r) for r in trained[first:second]]
    bare = [row for row in trained[second:] if row.style not in ALWAYS_SAID]
    return prompts + [
        EvaluationPrompt("bare_name", r.key, spoken(r.name)) for r in bare[: counts["bare_name"]]
    ]


def load_prompts() -> list[EvaluationPrompt]:
    """The prompts that are installed with the package."""
    text = (resources.files("calotype") / "configs" / "emoji_prompts.json").read_text("utf-8")
    entries = json.loads(text)["prompts"]
    return [
        EvaluationPrompt(**e | {"background": e["background"] and tuple(e["background"])})
        for e in entries
    ]


def _coloured(row: ImageRow) -> EvaluationPrompt:
    names = sorted(BACKGROUND_COLOURS)
    colour = names[int(_digest(f"{row.key} background"), 16) % len(names)]
    prompt = on_background(row.caption, colour)
    return EvaluationPrompt("background", row.key, prompt, BACKGROUND_COLOURS[colour])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
