"""How captions are made where data name what an image shows instead of describing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from calotype.data.example import Caption


class MakeCaptions(Protocol):
    """A function of a module, so that worker processes can have it too."""

    def __call__(
        self, name: str, keywords: Sequence[str], style: str, *, key: str, count: int
    ) -> tuple[Caption, ...]:
        """`count` captions of one image, which follow from the arguments alone."""


@dataclass(frozen=True)
class CaptionGrammar:
    """Makes captions of the columns name, keywords and style.

    Args:
        make: the captions of one image.
        version: other captions of the same columns are other data: this is part of a source's
            fingerprint.
    """

    make: MakeCaptions
    version: int
