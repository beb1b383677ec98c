"""How far raters agree: Krippendorff's alpha, 1 for full agreement, 0 for that of chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import krippendorff
import numpy as np

from calotype.evaluation.rating.judgements import CaptionRating, Judgement


@dataclass(frozen=True)
class Agreement:
    """Of raters who saw the same trials.

    Args:
        question: that was asked.
        alpha: Krippendorff's; None where no trial has two answers, or all answers are alike.
        trials: that have at least two answers.
        answers: in these trials.
    """

    question: str
    alpha: float | None
    trials: int
    answers: int


def judgement_agreement(judgements: Sequence[Judgement]) -> list[Agreement]:
    """Of each question; second, indifferent and first are ordered."""
    return [
        _agreement(
            question, ((one.trial, one.score) for one in judgements if one.question == question)
        )
        for question in dict.fromkeys(one.question for one in judgements)
    ]


def caption_agreement(ratings: Sequence[CaptionRating]) -> Agreement:
    """Of ratings of single images; no, somewhat and yes are ordered."""
    return _agreement("caption", ((one.trial, one.score) for one in ratings))


def _agreement(question: str, answers: Iterable[tuple[str, float]]) -> Agreement:
    counts = Counter(answers)
    trials = list(dict.fromkeys(trial for trial, _ in counts))
    domain = sorted({score for _, score in counts})
    table = np.array([[counts[trial, score] for score in domain] for trial in trials])
    several = table[table.sum(axis=1) >= 2] if trials else np.zeros((0, 0))
    alpha = None
    # Without two values that occur in such trials, chance itself would agree fully.
    if (several.sum(axis=0) > 0).sum() >= 2:
        alpha = krippendorff.alpha(
            value_counts=several, value_domain=domain, level_of_measurement="ordinal"
        )
    return Agreement(
        question, None if alpha is None else float(alpha), len(several), int(several.sum())
    )
