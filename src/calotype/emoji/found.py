"""Does a sample show what a caption of the emoji set asks for? By the real images that are near."""

from __future__ import annotations

import functools
from pathlib import Path

from torch import Tensor

from calotype.emoji.eleven.parts import small
from calotype.emoji.eleven.references import References
from calotype.emoji.gallery import read_rows
from calotype.errors import UsageError
from calotype.evaluation.judging import Check
from calotype.evaluation.suites.suite import Prompt


def found_check(data: Path) -> Check | None:
    """Whether a sample's concept is among the nearest real images of its style.

    Prompts have the keys of the set's images as ids, and ask for white backgrounds.

    Returns:
        None if `data` is no emoji set.
    """
    try:
        read_rows(data)
    except UsageError:
        return None
    read = functools.cache(lambda: References.read(data))  # all images: when first needed

    def is_found(image: Tensor, prompt: Prompt) -> bool:
        references = read()
        return references.is_found(small(image), references.row(prompt.id))

    return is_found
