"""Choose the prompts of emoji-11 from the rows of the set: by hash of their keys, never by eye.

No image is looked at. In each category the rows with the smallest hash of their key are taken,
one of a concept, so the choice is the same in whatever order the rows come.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from typing import Any

from calotype.emoji.captions import BACKGROUND_COLOURS, GRAMMAR, plain_keywords, with_article
from calotype.emoji.eleven import wording
from calotype.emoji.prompts import ImageRow
from calotype.evaluation.suites.suite import Prompt

A_CATEGORY = 20
"""Prompts of each category."""
CAPTIONS_TRAINED = 24
"""Captions an image that the embedded default was trained on; see the recipe `emoji-64`."""
OBJECT_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black")
# Groups of the set whose images show one thing that can be counted, moved and coloured.
_THING_GROUPS = ("animals-nature", "food-drink", "objects", "activities", "travel-places")
_COLOUR_WORDS = frozenset({*OBJECT_COLOURS, "white", "grey", "gray"})
_TWO_THINGS = 12


@dataclass(frozen=True)
class Rows:
    """The rows of the set and what follows from all of them."""

    rows: tuple[ImageRow, ...]

    def of(self, split: str) -> list[ImageRow]:
        """The rows of a split."""
        return [row for row in self.rows if row.split == split]

    @cached_property
    def styles(self) -> list[str]:
        """The styles that are trained on."""
        return sorted({row.style for row in self.of("train")})

    @cached_property
    def trained_words(self) -> frozenset[str]:
        """All words of all captions that were trained on."""
        words = set[str]()
        for row in self.of("train"):
            made = GRAMMAR.make(
                row.name, row.keywords, row.style, key=row.key, count=CAPTIONS_TRAINED
            )
            for caption in made:
                words.update(re.findall(r"[a-z]+", caption.text.lower()))
        return frozenset(words)

    @cached_property
    def known_words(self) -> frozenset[str]:
        """All words of names and keywords, trained on or not."""
        texts = (text for row in self.rows for text in (row.name, *row.keywords))
        return frozenset(word for text in texts for word in re.findall(r"[a-z]+", text.lower()))

    @cached_property
    def concepts_by_keyword(self) -> dict[str, set[str]]:
        """The concepts that a keyword, or a word of a name, belongs to."""
        found = defaultdict[str, set[str]](set)
        for row in self.rows:
            for word in (*row.keywords, *row.name.lower().split()):
                found[word.strip().lower()].add(row.concept)
        return found

    @cached_property
    def things(self) -> list[ImageRow]:
        """Trained rows of things that can be counted, called by one or two plain words."""
        return [
            row
            for row in self.of("train")
            if row.group in _THING_GROUPS
            and re.fullmatch(r"[a-z]+( [a-z]+)?", row.name)
            and with_article(row.name) == _with_plain_article(row.name)
            and not _COLOUR_WORDS & set(row.name.split())
        ]


def choose(rows: Iterable[ImageRow]) -> list[Prompt]:
    """The prompts of all categories, in the order of the categories."""
    known = Rows(tuple(rows))
    return [
        Prompt(f"{category.replace(' ', '-')}-{place:02}", caption, category, facts)
        for category, choice in CATEGORIES.items()
        for place, (caption, facts) in enumerate(islice(choice(known), A_CATEGORY), 1)
    ]


def in_order(category: str, rows: Iterable[ImageRow]) -> list[ImageRow]:
    """The first row of each concept, in the order of a hash of the category and the key."""
    ordered = sorted(rows, key=lambda row: _digest(f"emoji-11 {category} {row.key}"))
    first = dict[str, ImageRow]()
    for row in ordered:
        first.setdefault(row.concept, row)
    return list(first.values())


_Chosen = Iterator[tuple[str, dict[str, Any]]]


def _facts(row: ImageRow, **more: Any) -> dict[str, Any]:
    return {"key": row.key, "concept": row.concept, "style": row.style, **more}


def _styles(known: Rows) -> _Chosen:
    """A few concepts in every style that is trained on."""
    trained = Counter(row.concept for row in known.of("train"))
    complete = [row for row in known.of("train") if trained[row.concept] == len(known.styles)]
    by_concept = defaultdict[str, list[ImageRow]](list)
    for row in sorted(complete, key=lambda row: row.style):
        by_concept[row.concept].append(row)
    for concept in sorted(by_concept, key=lambda name: _digest(f"emoji-11 styles {name}")):
        for row in by_concept[concept]:
            yield wording.styled(row), _facts(row)


def _unseen(known: Rows, *, split: str) -> _Chosen:
    for row in in_order(split, known.of(split)):
        yield wording.styled(row), _facts(row)


def _background(known: Rows) -> _Chosen:
    """Every colour that backgrounds are painted with, in turn."""
    colours = sorted(BACKGROUND_COLOURS, key=lambda name: _digest(f"emoji-11 background {name}"))
    for place, row in enumerate(in_order("background colour", known.of("train"))):
        colour = colours[place % len(colours)]
        caption = wording.on_colour(row, colour)
        yield caption, _facts(row, colour=colour, rgb=list(BACKGROUND_COLOURS[colour]))


def _object_colour(known: Rows) -> _Chosen:
    for place, row in enumerate(in_order("object colour", known.things)):
        colour = OBJECT_COLOURS[place % len(OBJECT_COLOURS)]
        text = _with_plain_article(f"{colour} {row.name}")
        yield wording.styled(row, text), _facts(row, colour=colour)


def _counting(known: Rows) -> _Chosen:
    counts = list(wording.NUMBER_WORDS.items())
    for place, row in enumerate(in_order("counting", known.things)):
        wanted, word = counts[place % len(counts)]
        text = f"{word} {wording.plural(row.name)}"
        yield wording.styled(row, text), _facts(row, count=wanted)


def _position(known: Rows) -> _Chosen:
    """One thing in each place of the image, and then two things, one beside the other."""
    rows = iter(in_order("position", known.things))
    for place, words in wording.PLACES.items():
        row = next(rows, None)
        if row is None:
            return
        yield wording.styled(row, f"{with_article(row.name)} {words}"), _facts(row, place=place)
    relations = list(wording.RELATIONS.items())
    for turn, (row, other) in enumerate(_pairs("position", rows, known.things)):
        relation, words = relations[turn % len(relations)]
        text = f"{with_article(row.name)} {words} {with_article(other.name)}"
        yield wording.styled(row, text), _facts(row, relation=relation, **_other(other))


def _two_things(known: Rows) -> _Chosen:
    """Two things side by side, and then two in a relation that no image of the set shows."""
    rows = in_order("two things", known.things)
    for place, (row, other) in enumerate(_pairs("two things", rows, known.things)):
        together = place < _TWO_THINGS
        forms = wording.TOGETHER if together else wording.CONFLICTS
        kind = "together" if together else "conflict"
        text = forms[place % len(forms)].format(
            a=with_article(row.name), b=with_article(other.name), many=wording.plural(other.name)
        )
        yield wording.styled(row, text), _facts(row, kind=kind, **_other(other))


def _rare_words(known: Rows) -> _Chosen:
    """A keyword of one concept alone, which is in no caption that was trained on."""
    used = set[str]()
    for row in in_order("rare words", known.of("train")):
        words = [
            word
            for word in plain_keywords(row.name, row.keywords)
            if re.fullmatch("[a-z]+", word)
            and word not in known.trained_words | used
            and len(known.concepts_by_keyword[word]) == 1
        ]
        if words:
            word = words[wording.number(f"keyword {row.key}", len(words))]
            used.add(word)
            yield f"{word}, {row.style}", _facts(row, keyword=word)


def _misspellings(known: Rows) -> _Chosen:
    suitable = [
        row
        for row in known.of("train")
        if re.fullmatch(r"[a-z]+( [a-z]+)*", row.name) and re.search("[a-z]{5}", row.name)
    ]
    for row in in_order("misspellings", suitable):
        wrong = wording.misspelt(row.name, known.known_words)
        text = with_article(row.name).replace(row.name, wrong)
        yield wording.styled(row, text), _facts(row, name=row.name, misspelt=wrong)


def _descriptions(known: Rows) -> _Chosen:
    """Three keywords that were trained on, have nothing of the name, and fit this concept alone."""
    for row in in_order("descriptions", known.of("train")):
        words = [
            word
            for word in plain_keywords(row.name, row.keywords)
            if set(re.findall("[a-z]+", word)) <= known.trained_words and not _alike(word, row.name)
        ]
        words.sort(key=lambda word: _digest(f"emoji-11 description {row.key} {word}"))
        shared = [known.concepts_by_keyword[word] for word in words[:3]]
        if len(words) >= 3 and set.intersection(*shared) == {row.concept}:
            three = (words[0], words[1], words[2])
            yield wording.about(row, three), _facts(row, keywords=list(three))


def _pairs(
    category: str, rows: Iterable[ImageRow], things: Sequence[ImageRow]
) -> Iterator[tuple[ImageRow, ImageRow]]:
    """Each row with another thing of its style, none of them twice."""
    used = set[str]()
    others = sorted(things, key=lambda other: _digest(f"emoji-11 {category} second {other.key}"))
    for row in rows:
        if row.concept in used:
            continue
        used.add(row.concept)
        for other in others:
            if other.style == row.style and other.concept not in used:
                used.add(other.concept)
                yield row, other
                break


def _other(row: ImageRow) -> dict[str, str]:
    return {"other_key": row.key, "other_concept": row.concept}


def _alike(word: str, name: str) -> bool:
    """Whether a keyword shares the beginning of a word with a name: bread, breadstick."""
    parts = re.findall("[a-z]+", word)
    names = re.findall("[a-z]+", name.lower())
    return any(a[:4] == b[:4] or a in b or b in a for a in parts for b in names)


def _with_plain_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


CATEGORIES: dict[str, Callable[[Rows], _Chosen]] = {
    "styles": _styles,
    "unseen pairs": partial(_unseen, split="unseen_pair"),
    "unseen concepts": partial(_unseen, split="unseen_concept"),
    "background colour": _background,
    "object colour": _object_colour,
    "counting": _counting,
    "position": _position,
    "two things and conflicts": _two_things,
    "rare words": _rare_words,
    "misspellings": _misspellings,
    "descriptions": _descriptions,
}
