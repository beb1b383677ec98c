"""How often the checks of emoji-11 are right, and how often fooled, on real images.

Of each check two kinds of images are made whose truth is known: such as are right, and such as
nearly are: another concept, another style, one more thing, the other side. No sample of a model is
looked at. A check is trusted where it says True of at least 98 % of the former and of at most 2 %
of the latter.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from calotype.emoji.captions import BACKGROUND_COLOURS
from calotype.emoji.eleven.checks import checks_with
from calotype.emoji.eleven.choice import OBJECT_COLOURS, Rows, in_order
from calotype.emoji.eleven.compositions import Composer, Spot, on_colour
from calotype.emoji.eleven.references import References
from calotype.emoji.eleven.wording import NUMBER_WORDS, PLACES, RELATIONS
from calotype.emoji.prompts import ImageRow
from calotype.evaluation.about import table
from calotype.evaluation.suites.suite import Prompt

RIGHT_AT_LEAST, FOOLED_AT_MOST = 0.98, 0.02
_MIDDLE: Spot = (0.5, 0.5)
_CENTRES = {"left": 0.25, "right": 0.75, "top": 0.25, "bottom": 0.75}
_SIDES: Mapping[str, tuple[Spot, Spot]] = {
    "left": ((0.25, 0.5), (0.75, 0.55)),
    "right": ((0.75, 0.45), (0.25, 0.5)),
    "above": ((0.5, 0.25), (0.45, 0.75)),
    "below": ((0.55, 0.75), (0.5, 0.25)),
}


@dataclass(frozen=True)
class Trial:
    """An image of known truth, and the prompt that it is judged by."""

    image: Tensor
    prompt: Prompt
    right: bool


@dataclass(frozen=True)
class Proof:
    """What a check said: of images that are right, and of such as only look so.

    `silent` are images of either kind that it could not judge; they count as neither.
    """

    what: str
    judged_right: int
    right: int
    fooled: int
    wrong: int
    silent: int

    @property
    def holds(self) -> bool:
        """Whether the check may be trusted."""
        return (
            min(self.right, self.wrong) > 0
            and self.judged_right >= RIGHT_AT_LEAST * self.right
            and self.fooled <= FOOLED_AT_MOST * self.wrong
        )


def prove(references: References, count: int, say: Callable[[str], None]) -> list[Proof]:
    """Try every check on images made of `count` rows, chosen by hash of their keys."""
    known = Rows(references.gallery.rows)
    composer = Composer(references, random.Random(0))
    judges = checks_with(references)
    proofs = []
    for what, (category, trials) in _TRIALS.items():
        rows = known.things if category in _OF_THINGS else list(known.rows)
        chosen = in_order(f"proof {what}", rows)
        world = _World(references, composer, known, chosen, count)
        say(f"{what} ...")
        judge = judges[category]
        proofs.append(summarised(what, ((t, judge(t.image, t.prompt)) for t in trials(world))))
    return proofs


def summarised(what: str, found: Iterable[tuple[Trial, bool | None]]) -> Proof:
    """Count verdicts."""
    counts = defaultdict[tuple[bool, bool | None], int](int)
    for trial, verdict in found:
        counts[trial.right, verdict] += 1
    return Proof(
        what,
        counts[True, True],
        counts[True, True] + counts[True, False],
        counts[False, True],
        counts[False, True] + counts[False, False],
        counts[True, None] + counts[False, None],
    )


def proof_table(proofs: Iterable[Proof]) -> str:
    """The proofs in Markdown."""
    rows = [
        [
            proof.what,
            _rate(proof.judged_right, proof.right),
            _rate(proof.fooled, proof.wrong),
            str(proof.silent),
            "yes" if proof.holds else "no: left to people",
        ]
        for proof in proofs
    ]
    return table(["check, on real images", "right", "fooled", "cannot tell", "trusted"], rows)


def _rate(number: int, total: int) -> str:
    return f"{number / total:.1%} ({number} of {total})" if total else "none"


@dataclass(frozen=True)
class _World:
    references: References
    composer: Composer
    known: Rows
    rows: list[ImageRow]
    count: int

    def pairs(self) -> Iterator[tuple[ImageRow, ImageRow]]:
        """Rows, and another concept's row in the same style."""
        for place, row in enumerate(self.rows):
            same = [r for r in self.rows if r.style == row.style and r.concept != row.concept]
            if same:
                yield row, same[place % len(same)]

    def of_other_style(self, row: ImageRow) -> ImageRow | None:
        """The same concept in another style."""
        others = [r for r in self.known.rows if r.concept == row.concept and r.style != row.style]
        return in_order(f"other style {row.key}", others)[0] if others else None


def _trial(image: Tensor, row: ImageRow, right: bool, **facts: object) -> Trial:
    more = {"key": row.key, "concept": row.concept, "style": row.style, **facts}
    return Trial(image, Prompt("proof", row.name, None, more), right)


def _retrieval(world: _World) -> Iterator[Trial]:
    for row, other in list(world.pairs())[: world.count]:
        yield _trial(world.composer.varied(row), row, right=True)
        yield _trial(world.composer.varied(other), row, right=False)


def _style(world: _World) -> Iterator[Trial]:
    for row in world.rows[: world.count]:
        other = world.of_other_style(row)
        if other is not None:
            yield _trial(world.composer.varied(row), row, right=True)
            yield _trial(world.composer.varied(other), row, right=False)


def _background(world: _World) -> Iterator[Trial]:
    names = list(BACKGROUND_COLOURS)
    for place, row in enumerate(world.rows[: world.count]):
        asked, other = names[place % 16], names[(place + 1 + place // 16 % 15) % 16]
        for name in (asked, other):
            image = on_colour(world.references, row, BACKGROUND_COLOURS[name])
            yield _trial(image, row, name == asked, colour=asked)
        white = on_colour(world.references, row, (255, 255, 255))
        yield _trial(white, row, right=False, colour=asked)


def _named_colour(world: _World) -> Iterator[Trial]:
    """Images whose names are told apart by a colour: red apple, green apple."""
    named = defaultdict[str, set[str]](set)
    rows = [row for row in world.known.rows if len(row.name.split()) == 2]
    for row in rows:
        colour, noun = row.name.split()
        if colour in (*OBJECT_COLOURS, "white", "grey"):
            named[noun].add(colour)
    for row in rows:
        colour, noun = row.name.split()
        if colour in named[noun] and len(named[noun]) > 1:
            image = world.references.real(row).round().byte()
            for asked in OBJECT_COLOURS:
                yield _trial(image, row, asked == colour, colour=asked)


def _given_colour(world: _World) -> Iterator[Trial]:
    for place, row in enumerate(world.rows[: world.count]):
        for name, value in BACKGROUND_COLOURS.items():
            colour = name.split()[-1]
            if colour in OBJECT_COLOURS:
                others = [asked for asked in OBJECT_COLOURS if asked != colour]
                image = world.composer.recoloured(row, value)
                yield _trial(image, row, right=True, colour=colour)
                yield _trial(image, row, right=False, colour=others[place % len(others)])


def _counting(world: _World) -> Iterator[Trial]:
    for place, (row, other) in enumerate(list(world.pairs())[: world.count]):
        for asked in NUMBER_WORDS:
            made = world.composer.scattered
            yield _trial(made([row] * asked), row, right=True, count=asked)
            wrong = asked + (1 if place % 2 or asked == 2 else -1)
            yield _trial(made([row] * wrong), row, right=False, count=asked)
            yield _trial(made([other] * asked), row, right=False, count=asked)


def _place(world: _World) -> Iterator[Trial]:
    spots = {place: _spot(place) for place in PLACES} | {"": _MIDDLE}
    for number, (row, other) in enumerate(list(world.pairs())[: world.count]):
        for place in PLACES:
            made = world.composer.placed
            yield _trial(made([row], [spots[place]]), row, right=True, place=place)
            elsewhere = [p for p in spots if not set(place.split()) <= set(p.split())]
            wrong = elsewhere[number % len(elsewhere)]
            yield _trial(made([row], [spots[wrong]]), row, right=False, place=place)
            yield _trial(made([other], [spots[place]]), row, right=False, place=place)
        whole = world.references.real(row).round().byte()
        yield _trial(whole, row, right=False, place=list(PLACES)[number % len(PLACES)])


def _spot(place: str) -> Spot:
    words = place.split()
    x = next((_CENTRES[word] for word in words if word in ("left", "right")), 0.5)
    y = next((_CENTRES[word] for word in words if word in ("top", "bottom")), 0.5)
    return x, y


def _relation(world: _World) -> Iterator[Trial]:
    for number, (row, other) in enumerate(list(world.pairs())[: world.count]):
        for relation in RELATIONS:
            ask = partial(_trial, row=row, relation=relation, other_key=other.key)
            made = world.composer.placed
            yield ask(made([row, other], _SIDES[relation]), right=True)
            wrong = [name for name in RELATIONS if name != relation][number % 3]
            yield ask(made([row, other], _SIDES[wrong]), right=False)
            yield ask(made([row, row], _SIDES[relation]), right=False)


def _together(world: _World) -> Iterator[Trial]:
    for row, other in list(world.pairs())[: world.count]:
        ask = partial(_trial, row=row, kind="together", other_key=other.key)
        made = world.composer.scattered
        yield ask(made([row, other]), right=True)
        third = next(t for t in world.rows if t.concept not in (row.concept, other.concept))
        for wrong in ([row, row], [row, third], [third, other], [row]):
            yield ask(made(wrong), right=False)


_OF_THINGS = {"object colour", "counting", "position", "two things and conflicts"}
_TRIALS: dict[str, tuple[str, Callable[[_World], Iterator[Trial]]]] = {
    "retrieval": ("unseen concepts", _retrieval),
    "style": ("styles", _style),
    "background colour": ("background colour", _background),
    "object colour, named": ("object colour", _named_colour),
    "object colour, given": ("object colour", _given_colour),
    "counting": ("counting", _counting),
    "position, of one": ("position", _place),
    "position, of two": ("position", _relation),
    "two things": ("two things and conflicts", _together),
}
