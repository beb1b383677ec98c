"""Which set people prefer: rates and all three fractions, overall and by category."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from scipy.stats import binomtest
from statsmodels.stats.multitest import multipletests

from calotype.evaluation.rating.clustered import Clustered, Scale, clustered_mean
from calotype.evaluation.rating.judgements import Judgement

RATE = Scale(0.0, 1.0, null=0.5)
_FRACTION = Scale(0.0, 1.0)


@dataclass(frozen=True)
class Preference:
    """What people said of one pair, to one question, about one category of prompts.

    Args:
        question: that was asked.
        first, second: the sets.
        category: of the prompts; None for all.
        rate: how often the first was preferred; an indifferent answer is half a preference.
        fractions: of answers for the first, indifferent ones, and for the second.
        sign_p: of the exact sign test on the answers that are not indifferent, taken for
            independent; None where all are indifferent.
        holm_p: `rate.p_value` corrected for all categories of the pair; of a row for all
            categories, for all pairs of the question.
    """

    question: str
    first: str
    second: str
    category: str | None
    rate: Clustered
    fractions: tuple[Clustered, Clustered, Clustered]
    sign_p: float | None
    holm_p: float | None = None


def preferences(judgements: Sequence[Judgement]) -> list[Preference]:
    """Of each question and pair: all prompts together, then each category if there are several.

    Holm's correction is made within a pair's categories, and within a question's pairs.
    """
    found: list[Preference] = []
    for question in dict.fromkeys(one.question for one in judgements):
        asked = [one for one in judgements if one.question == question]
        pairs = dict.fromkeys((one.first, one.second) for one in asked)
        groups = [[one for one in asked if (one.first, one.second) == pair] for pair in pairs]
        overall = corrected(_preference(group, None) for group in groups)
        for whole, group in zip(overall, groups, strict=True):
            found += [whole, *_by_category(group)]
    return found


def corrected(rows: Iterable[Preference]) -> list[Preference]:
    """The rows with Holm's correction."""
    rows = list(rows)
    p_values = holm([row.rate.p_value for row in rows])
    return [replace(row, holm_p=p) for row, p in zip(rows, p_values, strict=True)]


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction; None stays None, and counts as a test that found nothing."""
    if len(p_values) < 2:  # statsmodels collects garbage in each call, which takes long
        return list(p_values)
    counted = [1.0 if p is None else p for p in p_values]
    adjusted = multipletests(counted, method="holm")[1]
    return [None if p is None else float(q) for p, q in zip(p_values, adjusted, strict=True)]


def _by_category(judgements: list[Judgement]) -> list[Preference]:
    categories = dict.fromkeys(one.category for one in judgements)
    if len(categories) < 2:
        return []
    return corrected(
        _preference([one for one in judgements if one.category == category], category)
        for category in categories
        if category is not None
    )


def _preference(judgements: Sequence[Judgement], category: str | None) -> Preference:
    raters = [one.rater for one in judgements]
    prompts = [one.prompt for one in judgements]
    scores = [one.score for one in judgements]
    wins, losses = scores.count(1.0), scores.count(0.0)
    first, indifferent, second = (
        clustered_mean([float(score == kind) for score in scores], raters, prompts, _FRACTION)
        for kind in (1.0, 0.5, 0.0)
    )
    return Preference(
        question=judgements[0].question,
        first=judgements[0].first,
        second=judgements[0].second,
        category=category,
        rate=clustered_mean(scores, raters, prompts, RATE),
        fractions=(first, indifferent, second),
        sign_p=float(binomtest(wins, wins + losses).pvalue) if wins + losses else None,
    )
