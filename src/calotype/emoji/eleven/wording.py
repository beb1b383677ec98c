"""How prompts of emoji-11 are put into words: forms that people use, plurals, typing errors."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection

from calotype.emoji.captions import spoken, with_article
from calotype.emoji.prompts import ImageRow

NUMBER_WORDS = {2: "two", 3: "three", 4: "four", 5: "five"}
PLACES = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "top left": "in the top left corner",
    "top right": "in the top right corner",
    "bottom left": "in the bottom left corner",
    "bottom right": "in the bottom right corner",
}
RELATIONS = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
}
CONFLICTS = ("{a} riding {b}", "{a} inside {b}", "{a} made of {many}", "{a} shaped like {b}")
TOGETHER = ("{a} and {b}", "{a} next to {b}", "{a} with {b}")
_STYLED = (
    "{text}, {style}",
    "{text} in {style}",
    "an image of {text}, {style}",
    "an icon of {text} in {style}",
)
_ON_COLOUR = (
    "{text}, {style}, on {ground}",
    "{text} on {ground}, {style}",
    "{text} in {style} on {ground}",
)
_ABOUT = (
    "{a}, {b}, {c}, {style}",
    "something with {a}, {b} and {c}, {style}",
    "an icon for {a}, {b} and {c} in {style}",
)
# Rows of a keyboard: a finger that slips presses a neighbour.
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_PLURALS = {
    "mouse": "mice",
    "goose": "geese",
    "ox": "oxen",
    "deer": "deer",
    "moose": "moose",
    "bison": "bison",
    "squid": "squid",
    "shrimp": "shrimp",
    "wolf": "wolves",
    "knife": "knives",
    "leaf": "leaves",
    "scarf": "scarves",
    "potato": "potatoes",
    "tomato": "tomatoes",
    "mosquito": "mosquitoes",
    "volcano": "volcanoes",
    "buffalo": "buffaloes",
    "die": "dice",
}


def number(text: str, below: int) -> int:
    """A number in [0, below) that depends on the text alone."""
    digest = hashlib.sha256(f"emoji-11 {text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % below


def styled(row: ImageRow, text: str | None = None) -> str:
    """The caption of something in the row's style; None is what the row shows."""
    form = _STYLED[number(f"form {row.key}", len(_STYLED))]
    return form.format(text=with_article(row.name) if text is None else text, style=row.style)


def on_colour(row: ImageRow, colour: str) -> str:
    """The caption of what the row shows, on a coloured background."""
    form = _ON_COLOUR[number(f"form {row.key}", len(_ON_COLOUR))]
    ground = with_article(f"{colour} background")
    return form.format(text=with_article(row.name), style=row.style, ground=ground)


def about(row: ImageRow, words: tuple[str, str, str]) -> str:
    """The caption that describes what the row shows with three words."""
    form = _ABOUT[number(f"form {row.key}", len(_ABOUT))]
    a, b, c = words
    return form.format(a=a, b=b, c=c, style=row.style)


def plural(name: str) -> str:
    """The plural of a name of one or two words, of which the last is the noun."""
    first, space, noun = name.rpartition(" ")
    if noun in _PLURALS:
        many = _PLURALS[noun]
    elif noun.endswith("fish"):
        many = noun
    elif noun.endswith("man"):
        many = f"{noun[:-2]}en"
    elif noun.endswith(("s", "x", "z", "ch", "sh")):
        many = f"{noun}es"
    elif re.search(r"[^aeiou]y$", noun):
        many = f"{noun[:-1]}ies"
    else:
        many = f"{noun}s"
    return f"{first}{space}{many}"


def misspelt(name: str, known: Collection[str]) -> str:
    """The name with one typing error, in a word of five letters or more, that makes no known word.

    Letters are swapped, left out, doubled or slip to a neighbouring key; never the first one.

    Raises:
        ValueError: there is no such word.
    """
    words = spoken(name).split()
    places = [place for place, word in enumerate(words) if re.fullmatch("[a-z]{5,}", word)]
    if not places:
        raise ValueError(f"got the name {name!r}; expected a word of five letters or more")
    for attempt in range(100):
        place = places[number(f"word {attempt} {name}", len(places))]
        wrong = _slip(words[place], f"{attempt} {name}")
        if wrong != words[place] and wrong not in known:
            return " ".join([*words[:place], wrong, *words[place + 1 :]])
    raise ValueError(f"got the name {name!r}, of which every misspelling is a word")


def _slip(word: str, what: str) -> str:
    place = 1 + number(f"letter {what}", len(word) - 2)  # neither the first nor the last
    before, letter, after = word[:place], word[place], word[place + 1 :]
    match number(f"error {what}", 4):
        case 0:
            return before + after[0] + letter + after[1:]
        case 1:
            return before + after
        case 2:
            return before + letter + letter + after
        case _:
            row = next(row for row in _KEYBOARD if letter in row)
            beside = row[row.index(letter) - 1] if letter != row[0] else row[1]
            return before + beside + after
