"""What a model card is about, besides its figures; and how it writes tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from calotype.config.stage import StageConfig

NOT_AVAILABLE = "not available"


@dataclass(frozen=True)
class StageFile:
    """A stage of the cascade that a card is about."""

    config: StageConfig
    parameters: int
    sha256: str


@dataclass(frozen=True)
class About:
    """What a card is about: a cascade, its stages coarse to fine, and the machine, in words.

    `sheets` and `charts` are file names by what they show, in order; `data_recipe` is empty if
    there was none.
    """

    name: str
    text_encoder: str
    stages: tuple[StageFile, ...]
    machine: str
    version: str
    sheets: Mapping[str, str]
    data_recipe: Mapping[str, Any]
    charts: Mapping[str, str] = field(default_factory=dict)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
