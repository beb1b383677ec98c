"""How well captions describe images: means of 100 (yes), 50 (somewhat) and 0 (no), and differences.

Reference: Saharia et al. 2022, section 4.3 and appendix B, arXiv:2205.11487: people's agreement
with the caption, of the model's images and of the reference images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calotype.evaluation.rating.clustered import (
    Clustered,
    Scale,
    clustered_difference,
    clustered_mean,
)
from calotype.evaluation.rating.judgements import CaptionRating
from calotype.evaluation.rating.preferences import holm

_MEAN = Scale(0.0, 100.0)
_DIFFERENCE = Scale(-100.0, 100.0, null=0.0)


@dataclass(frozen=True)
class CaptionMean:
    """The mean rating of one set, and how many said yes, somewhat and no; category None is all."""

    set: str
    category: str | None
    mean: Clustered
    answers: tuple[int, int, int]


@dataclass(frozen=True)
class CaptionDifference:
    """The mean of one set less the reference's, on prompts that both were rated on."""

    set: str
    reference: str
    category: str | None
    difference: Clustered
    holm_p: float | None


def caption_means(ratings: Sequence[CaptionRating], sets: Sequence[str]) -> list[CaptionMean]:
    """Of each set: over all prompts, then by category if there are several."""
    return [
        CaptionMean(name, category, _mean(part), _counts(part))
        for name in sets
        for category in _categories(ratings)
        if (part := _part(ratings, name, category))
    ]


def caption_differences(
    ratings: Sequence[CaptionRating], sets: Sequence[str], reference: str
) -> list[CaptionDifference]:
    """Of each other set to the reference: over all prompts, then by category, by Holm's rule."""
    found = []
    for name in sets:
        if name == reference:
            continue
        rows = []
        for category in _categories(ratings):
            difference = _difference(
                _part(ratings, name, category), _part(ratings, reference, category)
            )
            if difference is not None:
                rows.append((category, difference))
        whole = [difference.p_value for category, difference in rows if category is None]
        adjusted = whole + holm([one.p_value for category, one in rows if category is not None])
        found += [
            CaptionDifference(name, reference, category, difference, p)
            for (category, difference), p in zip(rows, adjusted, strict=True)
        ]
    return found


def _categories(ratings: Sequence[CaptionRating]) -> list[str | None]:
    """None for all, then each category if there are several."""
    named = dict.fromkeys(one.category for one in ratings)
    return [None, *(name for name in named if name is not None)] if len(named) > 1 else [None]


def _part(ratings: Sequence[CaptionRating], name: str, category: str | None) -> list[CaptionRating]:
    return [one for one in ratings if one.set == name and category in (None, one.category)]


def _mean(ratings: list[CaptionRating]) -> Clustered:
    scores = [one.score for one in ratings]
    return clustered_mean(
        scores, [one.rater for one in ratings], [one.prompt for one in ratings], _MEAN
    )


def _counts(ratings: list[CaptionRating]) -> tuple[int, int, int]:
    scores = [one.score for one in ratings]
    return scores.count(100.0), scores.count(50.0), scores.count(0.0)


def _difference(first: list[CaptionRating], second: list[CaptionRating]) -> Clustered | None:
    common = {one.prompt for one in first} & {one.prompt for one in second}
    if not common:
        return None
    both = [one for one in (*first, *second) if one.prompt in common]
    return clustered_difference(
        [one.score for one in both],
        [one.set == first[0].set for one in both],
        ([one.rater for one in both], [one.prompt for one in both]),
        _DIFFERENCE,
    )
