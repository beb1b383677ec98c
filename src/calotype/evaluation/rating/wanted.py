"""What a study is to be, as the user asks for it, and whether it can be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from calotype.errors import UsageError
from calotype.evaluation.rating.blind import read_transform
from calotype.evaluation.rating.protocols import PROTOCOLS, Protocol
from calotype.evaluation.rating.sides import BestOf

_MOST_NAME = 100
# Controls, lone surrogates, and what turns the direction of the sentences that names stand in.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
CONSENT = (
    "You take part in a study that compares images. Your answers are kept with a random name and "
    "the participant id you give, if any; your network address is not. Taking part is voluntary: "
    "you can stop at any time, and have your answers deleted."
)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a study is to be.

    Args:
        protocol: a name of `PROTOCOLS`.
        sets: folders of sample sets by the names that reports use.
        reference: folder of a set of real images; realism needs one.
        suite: file of the prompts, for sets that are plain folders of images.
        seed: of the order of trials and sides.
        raters: answers wanted for each trial; None = the protocol's.
        per_rater: most trials, controls aside, that one rater is asked; None = a whole category
            or all.
        images: that a side shows; None = the protocol's.
        size: of the images in pixels; None = of the smallest set.
        best_of: by set name, how its images are chosen.
        transforms: by set name, what is done to its images.
        common: leave out prompts that not all sets have.
        split_people: two categories, of captions that name people and of all others.
        title: that raters read.
        consent: that raters agree to; None = `CONSENT`.
    """

    protocol: str
    sets: Mapping[str, Path]
    reference: Path | None = None
    suite: Path | None = None
    seed: int = 0
    raters: int | None = None
    per_rater: int | None = None
    images: int | None = None
    size: int | None = None
    best_of: Mapping[str, BestOf] = field(default_factory=dict)
    transforms: Mapping[str, str] = field(default_factory=dict)
    common: bool = False
    split_people: bool = False
    title: str = "Which images are better?"
    consent: str | None = None


def check_wanted(wanted: Wanted) -> Protocol:
    """The protocol of a study that can be made.

    Raises:
        UsageError: its sets or numbers do not fit the protocol.
    """
    protocol = PROTOCOLS.get(wanted.protocol)
    if protocol is None:
        known = ", ".join(PROTOCOLS)
        raise UsageError(f"got the protocol {wanted.protocol!r}; expected one of {known}")
    count, has_reference = len(wanted.sets), wanted.reference is not None
    if protocol.name == "drawbench" and (count != 2 or has_reference):
        raise UsageError(f"got {count} sets; drawbench compares two: give --set twice")
    if protocol.name == "elo" and (count < 2 or has_reference):
        raise UsageError(f"got {count} sets; elo compares two or more: give --set for each")
    if protocol.name == "realism" and not has_reference:
        raise UsageError("got no --reference; realism compares sets with real images")
    if not count:
        raise UsageError("got no set; expected --set NAME=DIR")
    for name in (*wanted.sets, *(["reference"] if has_reference else [])):
        if not name.strip() or len(name) > _MOST_NAME or _UNSEEN.search(name):
            raise UsageError(
                f"got a set named {name[:_MOST_NAME]!r}; expected 1 to {_MOST_NAME} characters, "
                "none of which controls how others are shown"
            )
    if has_reference and "reference" in wanted.sets:
        raise UsageError("got a set named 'reference' beside --reference; give it another name")
    for option in (wanted.best_of, wanted.transforms):
        for name in option:
            if name not in wanted.sets:
                raise UsageError(f"got the set {name!r}; expected one of {list(wanted.sets)}")
    for text in wanted.transforms.values():
        read_transform(text)
    for what, number in (
        ("raters", wanted.raters),
        ("trials a rater", wanted.per_rater),
        ("images", wanted.images),
        *((f"best of {name}", best.count) for name, best in wanted.best_of.items()),
    ):
        if number is not None and not 1 <= number <= 10_000:
            raise UsageError(f"got {number} {what}; expected 1 to 10,000")
    return protocol
