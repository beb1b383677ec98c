"""Whether a winner is named, and the sentence that says so; never below the planned number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from calotype.evaluation.rating.captions import CaptionDifference
from calotype.evaluation.rating.clustered import LEVEL, Clustered
from calotype.evaluation.rating.judgements import CaptionRating
from calotype.evaluation.rating.preferences import Preference

_LEVEL = 1 - LEVEL


@dataclass(frozen=True)
class Verdict:
    """Of one question and pair.

    Args:
        question: that was asked; "caption" of ratings of single images.
        first, second: the sets.
        reached, planned: judgements, or ratings of the set with fewer.
        winner: the set that is preferred, or None.
        sentence: that says all this.
    """

    question: str
    first: str
    second: str
    reached: int
    planned: int
    winner: str | None
    sentence: str

    @property
    def complete(self) -> bool:
        """Whether the planned number is reached."""
        return self.reached >= self.planned


def pair_verdicts(rows: Sequence[Preference], planned: int) -> list[Verdict]:
    """Of each question and pair, over all categories."""
    return [_of_pair(row, planned) for row in rows if row.category is None]


def caption_verdicts(
    rows: Sequence[CaptionDifference], ratings: Sequence[CaptionRating], planned: int
) -> list[Verdict]:
    """Of each set beside the reference, over all categories."""
    counts = Counter(one.set for one in ratings)
    return [
        _of_caption(row, min(counts[row.set], counts[row.reference]), planned)
        for row in rows
        if row.category is None
    ]


def percent(value: float) -> str:
    """A fraction as "61.3 %"."""
    return f"{100 * value:.1f} %"


def signed(value: float) -> str:
    """A difference as "+3.0" or "−3.0"."""
    return f"{value:+.1f}".replace("-", "−")


def _of_pair(row: Preference, planned: int) -> Verdict:
    rate, reached = row.rate, row.rate.count
    winner = None
    if reached < planned:
        sentence = _too_few(f"“{row.question}”, {row.first} against {row.second}", reached, planned)
    elif row.holm_p is None or row.holm_p >= _LEVEL:
        held = rate.low is None or rate.high is None or rate.low <= 0.5 <= rate.high
        reason = "which holds 50 %" if held else "but not after Holm's correction for all pairs"
        sentence = (
            f"“{row.question}”: no winner. {row.first} has {percent(rate.value)} of preferences "
            f"against {row.second}{_interval(rate, 100, ' %')}, {reason}."
        )
    else:
        first = rate.value > 0.5
        winner, other = (row.first, row.second) if first else (row.second, row.first)
        value = rate.value if first else 1 - rate.value
        sentence = (
            f"“{row.question}”: {winner} is preferred to {other} in {percent(value)} of answers"
            f"{_interval(rate, 100, ' %', mirrored=not first)}."
        )
    return Verdict(row.question, row.first, row.second, reached, planned, winner, sentence)


def _of_caption(row: CaptionDifference, reached: int, planned: int) -> Verdict:
    difference = row.difference
    winner = None
    points = f"{abs(difference.value):.1f} points{_interval(difference, 1, '')}"
    if reached < planned:
        sentence = _too_few(f"“caption”, {row.set} against {row.reference}", reached, planned)
    elif row.holm_p is None or row.holm_p >= _LEVEL:
        sentence = (
            f"“caption”: no difference is shown between {row.set} and {row.reference}: "
            f"{signed(difference.value)} points{_interval(difference, 1, '')}."
        )
    else:
        winner, other = row.set, row.reference
        if difference.value < 0:
            winner, other = other, winner
            points = f"{-difference.value:.1f} points{_interval(difference, 1, '', mirrored=True)}"
        sentence = (
            f"“caption”: captions describe images of {winner} better than {other}'s, by {points}."
        )
    return Verdict("caption", row.set, row.reference, reached, planned, winner, sentence)


def _too_few(what: str, reached: int, planned: int) -> str:
    return f"{what}: no winner is named, with {reached:,} of {planned:,} planned answers."


def _interval(found: Clustered, scale: float, unit: str, *, mirrored: bool = False) -> str:
    """In brackets; `mirrored` is of the other set: of 1 - rate, or of the negative difference."""
    if found.low is None or found.high is None:
        return " (no interval)"
    low, high = found.low, found.high
    if mirrored:
        whole = 1.0 if scale == 100 else 0.0
        low, high = whole - high, whole - low
    ends = f"{scale * low:.1f} to {scale * high:.1f}".replace("-", "−")
    return f" (95 % interval {ends}{unit})"
