"""Say what is in an image in the several ways people would ask for it.

A cascade understands the words it was trained with. Users write "a cat" as well as
"cat, flat twemoji style, on a pink background", so every image gets captions of each kind.
Which ones is decided by a hash of its key: the same key always gets the same captions.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from calotype.data.example import Caption
from calotype.data.grammar import CaptionGrammar

BACKGROUND_COLOURS = MappingProxyType(
    {
        "light blue": (173, 216, 240),
        "dark blue": (20, 40, 110),
        "sky blue": (100, 180, 250),
        "turquoise": (64, 210, 200),
        "light green": (170, 235, 170),
        "dark green": (10, 85, 45),
        "yellow": (255, 225, 70),
        "orange": (255, 155, 50),
        "red": (215, 45, 45),
        "pink": (255, 175, 205),
        "purple": (130, 70, 180),
        "lavender": (210, 195, 245),
        "beige": (240, 228, 200),
        "brown": (120, 75, 40),
        "grey": (150, 150, 150),
        "black": (0, 0, 0),
    }
)
"""Named colours (red, green, blue), each 0..255, that captions ask for and that are painted."""


ALWAYS_SAID = frozenset(
    {"3d render style", "flat fluent style", "flat twemoji style", "noto style"}
)
"""Styles of the emoji set that captions always say.

What is asked for without a style is to come in the remaining one, "glossy gradient style": were it
of all five, the best estimate would be their blend.
"""
STYLES = (*sorted(ALWAYS_SAID), "glossy gradient style")
"""All styles of the emoji set, as captions name them."""


@dataclass(frozen=True)
class _Subject:
    """What is to be said, and `number`, which makes the random choices: a number in [0, below)."""

    name: str
    keywords: tuple[str, ...]
    style: str
    number: Callable[[str, int], int]


def caption_variants(
    name: str, keywords: Sequence[str], style: str, *, key: str, count: int = 12
) -> tuple[Caption, ...]:
    """Captions of one image; the first is always "{name}, {style}" on white.

    The kinds are laid along [0, 1) by their fractions and read at `count` evenly spaced places,
    whose offset comes from the key: every image has nearly the fractions, all together exactly.
    Some captions are equal: that is their weight.

    Args:
        name: what is shown, e.g. "slice of pizza".
        keywords: further words; those in the name and those that are no plain words are not used.
        style: a phrase such as "flat fluent style"; empty leaves it out everywhere.
        key: the image's key, which decides every choice.
        count: number of captions, at least 1.

    Returns:
        `count` captions; those with a `background` name its colour.
    """
    if count < 1:
        raise ValueError(f"got count={count}; expected at least 1 caption")
    offset = _number(key, "offset", 2**32) / 2**32
    captions = [Caption(_join(name, style))]
    for index in range(1, count):
        place = (index + offset) / count
        number = functools.partial(_number, f"{key}\x1f{index}")
        subject = _Subject(name, plain_keywords(name, keywords), style, number)
        captions.append(_kind(place)(subject))
    return tuple(captions)


def _kind(place: float) -> Callable[[_Subject], Caption]:
    for fraction, kind in _KINDS:
        if place < fraction:
            return kind
        place -= fraction
    return _KINDS[-1][1]


def _plain(subject: _Subject) -> Caption:
    return Caption(_join(subject.name, subject.style))


def _sentence(subject: _Subject) -> Caption:
    thing, style, name = with_article(subject.name), subject.style, spoken(subject.name)
    if not style:
        return _bare(subject)
    forms = (
        f"{thing}, {style}",
        f"a picture of {thing}, {style}",
        f"{style} {name}",
        f"a drawing of {thing} in {style}",
        f"{thing} in {style}",
        f"{name} icon, {style}",
    )
    return Caption(forms[subject.number("form", len(forms))])


def _with_keywords(subject: _Subject) -> Caption:
    words = list(subject.keywords)
    if not words:
        return _sentence(subject)
    first = words.pop(subject.number("keyword", len(words)))
    if subject.number("keyword first", 6) == 0:
        return Caption(_join(first, subject.name, subject.style))
    if words and subject.number("two keywords", 2) == 0:
        second = words[subject.number("second keyword", len(words))]
        return Caption(_join(subject.name, subject.style, first, second))
    return Caption(_join(subject.name, subject.style, first))


def _bare(subject: _Subject) -> Caption:
    if subject.style in ALWAYS_SAID:
        return _sentence(subject)
    thing, name = with_article(subject.name), spoken(subject.name)
    forms = (name, thing, f"a picture of {thing}", name.lower(), f"an icon of {thing}")
    return Caption(forms[subject.number("form", len(forms))])


def _on_background(subject: _Subject) -> Caption:
    names = tuple(BACKGROUND_COLOURS)
    colour = names[subject.number("colour", len(names))]
    name = subject.name
    if subject.number("article", 4) == 0:
        name = with_article(name)
    return Caption(on_background(_join(name, subject.style), colour), BACKGROUND_COLOURS[colour])


def on_background(text: str, colour: str) -> str:
    """The caption `text` with a background of a named colour."""
    return f"{text}, on {_article(colour)} {colour} background"


GRAMMAR = CaptionGrammar(caption_variants, version=2)
"""What the commands make captions with, of every data set with name, keywords and style."""
# Fraction of the captions of each kind; they add up to 1.
_KINDS: tuple[tuple[float, Callable[[_Subject], Caption]], ...] = (
    (0.36, _plain),
    (0.12, _sentence),
    (0.08, _with_keywords),
    (0.12, _bare),
    (0.32, _on_background),
)


def plain_keywords(name: str, keywords: Sequence[str]) -> tuple[str, ...]:
    """The keywords that are plain words of three letters or more and say more than the name."""
    said = set(re.findall(r"[a-z]+", name.lower()))
    said |= {word.removesuffix("s") for word in said}
    return tuple(
        word
        for word in dict.fromkeys(word.strip().lower() for word in keywords)
        if re.fullmatch(r"[a-z][a-z -]{2,}", word)
        and not {part.removesuffix("s") for part in word.split()} <= said
    )


def spoken(name: str) -> str:
    """A name as one would say it: "man: bald" is a bald man, "woman: red hair" has red hair."""
    head, colon, tail = name.partition(": ")
    if not colon:
        return name
    if tail == "bald":
        return f"bald {head}"
    return f"{head} with {tail}" if tail.endswith(("hair", "beard")) else f"{head}, {tail}"


def with_article(name: str) -> str:
    """The name with "a" or "an" where English wants one: not for plurals, stuffs and names."""
    text = spoken(name)
    if name in _PROPER or _is_plural_or_stuff(text):
        return text
    if name in _UNIQUE:
        return f"the {text}"
    return f"{_article(text)} {text}"


def _article(text: str) -> str:
    word = re.split(r"[\s,-]", text)[0]
    if word.isupper() and word not in _SAID_AS_WORDS:  # spelled out: an SOS button, a UFO
        return "an" if word[0] in "AEFHILMNORSX" else "a"
    lower = word.lower()
    if lower.startswith(("hour", "honest", "heir", "x-ray")) or text.lower().startswith("x-ray"):
        return "an"
    if re.match(r"(uni([^n]|$)|u[st][aei]|e[uw]|one\b|once\b)", lower):
        return "a"
    return "an" if lower[:1] in tuple("aeiou8") else "a"


def _is_plural_or_stuff(text: str) -> bool:
    """Whether the head of a noun phrase (before "with", "of", "in", a comma ...) has no article."""
    if re.match(r"(zzz|.*o’clock$|.*-thirty$|rolling on)", text.lower()):
        return True
    phrase = re.split(r"\s(?:with|of|in|on|at|without|over|behind|for|from|showing)\s|,", text)[0]
    words = phrase.lower().split()
    if not words or words[0] in _NOUN_FIRST:
        return False
    if words[0] in _PLURAL_FIRST or words[-1] in _STUFF or phrase.lower() in _STUFF:
        return True
    if "and" in words[1:]:  # a hammer and wrench, but salt and pepper shakers
        words = words[: words.index("and", 1)]
    head = words[-1]
    return (
        head.endswith("s")
        and not head.endswith(("ss", "us", "is", "’s"))
        and head not in _SINGULAR_IN_S
    )


_PROPER = frozenset({"Santa Claus", "Mrs. Claus", "Mx Claus", "mount fuji", "Tokyo tower"})
_UNIQUE = frozenset({"Statue of Liberty", "milky way", "map of Japan"})
_SAID_AS_WORDS = frozenset({"NEW", "FREE", "COOL", "BACK", "END", "SOON", "TOP", "ON!", "UP!"})
_PLURAL_FIRST = frozenset({"people", "men", "women", "palms", "thumbs"})
_NOUN_FIRST = frozenset({"person", "man", "woman", "face"})
_SINGULAR_IN_S = frozenset({"gas", "lens", "rhinoceros"})
# Heads that English does not count, and labels that are no nouns at all.
_STUFF = frozenset(
    """rice bread bacon butter cheese salt ice honey milk tea coffee wine beer sake water food
    spaghetti curry garlic ginger fog rain snow wind fire paper yarn thread knitting bowling
    golf tennis hockey baseball basketball football soccer softball volleyball badminton lacrosse
    fencing money luggage clothing celery mate soap lightning broccoli wood music popcorn custard
    flatbread fondue falafel sushi pasta meat dna liquid pong racing voltage construction camping
    cooking dizzy foggy locked unlocked star-struck breast-feeding skis""".split()
) | {"ice cream", "soft ice cream", "shaved ice", "green salad", "bubble tea", "dashing away"}


def _join(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _number(key: str, what: str, below: int) -> int:
    """A number in [0, below) that depends on nothing but the arguments."""
    digest = hashlib.sha256(f"{key}\x1f{what}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % below
