"""What people answered, as the statistics read it: judgements of pairs, ratings, control trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

CONTROL_LIMIT = 0.2
"""Raters who fail more than this fraction of their control trials are left out."""


@dataclass(frozen=True)
class Judgement:
    """One answer about a pair.

    Args:
        rater: a name that says nothing about the person.
        trial: what was shown; the same for all who saw it.
        prompt: id of the prompt.
        category: of the prompt.
        question: "quality", "alignment", "realism", "better", ...
        first, second: the sets compared, in the study's order and not the screen's.
        score: 1 where the first is preferred, 0 the second, 0.5 indifferent or cannot tell.
    """

    rater: str
    trial: str
    prompt: str
    category: str | None
    question: str
    first: str
    second: str
    score: float

    def __post_init__(self) -> None:
        _check_score(self.score, (0.0, 0.5, 1.0))


@dataclass(frozen=True)
class CaptionRating:
    """One answer about one image: does the caption describe it? 100 yes, 50 somewhat, 0 no."""

    rater: str
    trial: str
    prompt: str
    category: str | None
    set: str
    score: float

    def __post_init__(self) -> None:
        _check_score(self.score, (0.0, 50.0, 100.0))


@dataclass(frozen=True)
class ControlAnswer:
    """An answer to a trial that has a right answer."""

    rater: str
    trial: str
    passed: bool


@dataclass(frozen=True)
class ControlRecord:
    """How one rater did in control trials."""

    rater: str
    answered: int
    failed: int
    left_out: bool


@dataclass(frozen=True, kw_only=True)
class StudyResults:
    """All that a report is written of.

    Args:
        name: of the study.
        protocol: "drawbench", "realism", "caption" or "elo".
        sets: names of the sets, in the study's order.
        reference: which of them holds real images.
        planned: judgements of each question and pair (ratings of each set in a caption study)
            without those of raters who failed the controls; below it no winner is named.
        stopping_rule: in words.
        sha256: of the frozen prompts, sets, seeds, number and stopping rule.
        closed: whether no more answers are taken.
        conditions: more that was fixed before, to be printed: re-ranking, without people, ...
        judgements, ratings, controls: the answers.
    """

    name: str
    protocol: str
    sets: tuple[str, ...]
    reference: str | None = None
    planned: int
    stopping_rule: str
    sha256: str
    closed: bool
    conditions: Mapping[str, str] = field(default_factory=dict)
    judgements: tuple[Judgement, ...] = ()
    ratings: tuple[CaptionRating, ...] = ()
    controls: tuple[ControlAnswer, ...] = ()

    def without(self, raters: frozenset[str]) -> StudyResults:
        """The results without the answers of some raters; their control trials stay."""
        return replace(
            self,
            judgements=_of_others(self.judgements, raters),
            ratings=_of_others(self.ratings, raters),
        )


def excluded_raters(
    controls: Iterable[ControlAnswer], limit: float = CONTROL_LIMIT
) -> frozenset[str]:
    """Raters who failed more than a fraction `limit` of their control trials."""
    return frozenset(record.rater for record in control_records(controls, limit) if record.left_out)


def control_records(
    controls: Iterable[ControlAnswer], limit: float = CONTROL_LIMIT
) -> list[ControlRecord]:
    """How each rater did in control trials, those who failed most first."""
    answers = list(controls)
    answered = Counter(answer.rater for answer in answers)
    failed = Counter(answer.rater for answer in answers if not answer.passed)
    records = [
        ControlRecord(rater, count, failed[rater], failed[rater] > limit * count)
        for rater, count in answered.items()
    ]
    return sorted(records, key=lambda record: (-record.failed / record.answered, record.rater))


def in_order(judgements: Iterable[Judgement], sets: Sequence[str]) -> list[Judgement]:
    """The judgements with the sets of each pair in the order of `sets`."""
    place = {name: number for number, name in enumerate(sets)}
    return [
        one
        if place[one.first] <= place[one.second]
        else replace(one, first=one.second, second=one.first, score=1 - one.score)
        for one in judgements
    ]


_Answer = TypeVar("_Answer", Judgement, CaptionRating)


def _of_others(answers: tuple[_Answer, ...], raters: frozenset[str]) -> tuple[_Answer, ...]:
    return tuple(answer for answer in answers if answer.rater not in raters)


def _check_score(score: float, known: tuple[float, ...]) -> None:
    if score not in known:
        raise ValueError(f"a score is one of {known}, got {score}")
