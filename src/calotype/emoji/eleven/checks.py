"""Does a sample show what its prompt of emoji-11 asks for? One rule a category.

A rule says True or False, or None where it cannot tell: then people judge. `proof` measures the
rules on real images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from torch import Tensor

from calotype.emoji.eleven.colours import ground_fraction, main_colour
from calotype.emoji.eleven.parts import Part, find_parts, small, whole
from calotype.emoji.eleven.references import References
from calotype.emoji.prompts import ImageRow
from calotype.evaluation.judging import Check
from calotype.evaluation.suites.suite import Prompt

_Rule = Callable[[References, Tensor, Prompt], bool | None]
_MOST = 0.5
_OFF_CENTRE = 0.06
"""Of the side: how far from the middle a thing's centre lies that is on one side of it."""


def checks(data: Path) -> Mapping[str, Check]:
    """The checks by category; reads the set's images once.

    Raises:
        UsageError: there is no such set.
        MissingExtra: a package of `evaluate` is not installed.
    """
    return checks_with(References.read(data))


def checks_with(references: References) -> Mapping[str, Check]:
    """The checks by category, with real images that are there already."""
    return {category: partial(_judge, rule, references) for category, rule in _RULES.items()}


def _judge(rule: _Rule, references: References, image: Tensor, prompt: Prompt) -> bool | None:
    return rule(references, small(image), prompt)


def _found(references: References, image: Tensor, prompt: Prompt) -> bool:
    """The concept is among the nearest five real images of the style."""
    return references.is_found(image, references.row(prompt.facts["key"]))


def _in_style(references: References, image: Tensor, prompt: Prompt) -> bool | None:
    """Of the concept's real images the one in this style is nearest in `lite0`.

    Whatever it shows: were samples judged by retrieval first, those that fail it would be judged
    and most others not, and the fraction would be of failures.
    """
    return references.is_in_style(image, prompt.facts["concept"], prompt.facts["style"])


def _background(references: References, image: Tensor, prompt: Prompt) -> bool | None:
    """Most of the rim is nearer to the colour than to any other; unless the thing covers it."""
    if not references.has_ground(references.row(prompt.facts["key"])):
        return None
    return ground_fraction(image, prompt.facts["colour"]) >= _MOST


def _object_colour(references: References, image: Tensor, prompt: Prompt) -> bool:
    """The colour is the one that most of what is shown has. It may be any thing."""
    return bool(main_colour(image) == prompt.facts["colour"])


def _counting(references: References, image: Tensor, prompt: Prompt) -> bool | None:
    """So many parts, most of them the thing; unless its real image has several parts."""
    row = references.row(prompt.facts["key"])
    if not references.is_one_part(row):
        return None
    parts = find_parts(image)
    if len(parts) != prompt.facts["count"]:
        return False
    found = sum(references.is_part_found(image, part, row) for part in parts)
    return found > _MOST * len(parts)


def _position(references: References, image: Tensor, prompt: Prompt) -> bool | None:
    """The thing, and all that is shown, is in the place; or one thing is beside the other."""
    facts = prompt.facts
    row = references.row(facts["key"])
    if "relation" in facts:
        return _beside(references, image, prompt, lambda a, b: _lies(a, b, facts["relation"]))
    part = whole(image)
    return (
        part is not None
        and all(_is_at(part, word) for word in facts["place"].split())
        and references.is_part_found(image, part, row)
    )


def _two_things(references: References, image: Tensor, prompt: Prompt) -> bool | None:
    """Two parts, one of them one thing and one the other; conflicts are left to people."""
    if prompt.facts["kind"] == "conflict":
        return None
    return _beside(references, image, prompt, lambda a, b: True)


def _beside(
    references: References, image: Tensor, prompt: Prompt, fits: Callable[[Part, Part], bool]
) -> bool | None:
    """Two parts are the two things and fit; None unless each real image is one part."""
    first, second = (references.row(prompt.facts[key]) for key in ("key", "other_key"))
    if not (references.is_one_part(first) and references.is_one_part(second)):
        return None
    parts = find_parts(image)
    ones, others = (_those(references, image, parts, row) for row in (first, second))
    return any(fits(a, b) for a in ones for b in others if a is not b)


def _those(references: References, image: Tensor, parts: list[Part], row: ImageRow) -> list[Part]:
    return [part for part in parts if references.is_part_found(image, part, row)]


def _is_at(part: Part, word: str) -> bool:
    return {
        "left": part.x < 0.5 - _OFF_CENTRE,
        "right": part.x > 0.5 + _OFF_CENTRE,
        "top": part.y < 0.5 - _OFF_CENTRE,
        "bottom": part.y > 0.5 + _OFF_CENTRE,
    }[word]


def _lies(a: Part, b: Part, relation: str) -> bool:
    """Whether `a` is more to that side of `b` than to any other."""
    right, down = a.x - b.x, a.y - b.y
    ahead = {"left": -right, "right": right, "above": -down, "below": down}[relation]
    return ahead > 0 and ahead >= max(abs(right), abs(down))


_RULES: dict[str, _Rule] = {
    "styles": _in_style,
    "unseen pairs": _found,
    "unseen concepts": _found,
    "background colour": _background,
    "object colour": _object_colour,
    "counting": _counting,
    "position": _position,
    "two things and conflicts": _two_things,
    "rare words": _found,
    "misspellings": _found,
    "descriptions": _found,
}
