"""Elo ratings of any number of sets from judgements of pairs, by Bradley and Terry's model.

The chance that one set is preferred is 1 / (1 + 10^(-difference / 400)). A preference counts
twice; an indifferent answer once each way, so that it is half a win for both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import choix
import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from calotype.evaluation.rating.judgements import Judgement

Wins = NDArray[np.float64]
MEAN = 1000.0
"""The mean of all ratings; only differences have a meaning."""
_SCALE = 400 / math.log(10)
_ALPHA = 0.1
_MOST_STEPS = 10_000


@dataclass(frozen=True)
class Rating:
    """A set's rating with its 95 % interval (None of a single rater), and its answers."""

    set: str
    elo: float
    low: float | None
    high: float | None
    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class EloTable:
    """Ratings, the best first.

    Args:
        ratings: of the sets that were compared.
        alpha: strength of the regularisation; 0 where none was needed.
        resamples: of the raters, for the intervals.
        regularised_resamples: those among them that needed it.
    """

    ratings: tuple[Rating, ...]
    alpha: float
    resamples: int
    regularised_resamples: int


def elo_table(
    judgements: Sequence[Judgement], *, resamples: int = 1000, seed: int = 0
) -> EloTable | None:
    """Ratings of all sets that were compared; None without judgements.

    Regularised (choix's alpha) only where the model has no finite answer: somebody never won or
    never lost, or groups of sets were not compared.

    Args:
        judgements: to one question.
        resamples: how often raters are sampled with replacement for the intervals.
        seed: of these samples.
    """
    names = list(dict.fromkeys(name for one in judgements for name in (one.first, one.second)))
    if not names:
        return None
    wins = _wins(judgements, names)
    total = wins.sum(axis=0)
    bounds, regularised = _intervals(wins, resamples, seed)
    ratings = [
        Rating(name, float(elo), low, high, *_record(judgements, name))
        for name, elo, (low, high) in zip(names, _elo(total), bounds, strict=True)
    ]
    ratings.sort(key=lambda rating: -rating.elo)
    used = 0 if ratings[0].low is None else resamples
    return EloTable(tuple(ratings), 0.0 if _connected(total) else _ALPHA, used, regularised)


def _wins(judgements: Sequence[Judgement], names: list[str]) -> Wins:
    """How often each set won against each other, for each rater, (R, K, K)."""
    raters = {rater: i for i, rater in enumerate(dict.fromkeys(one.rater for one in judgements))}
    place = {name: i for i, name in enumerate(names)}
    wins = np.zeros((len(raters), len(names), len(names)))
    for one in judgements:
        rater, first, second = raters[one.rater], place[one.first], place[one.second]
        wins[rater, first, second] += 2 * one.score
        wins[rater, second, first] += 2 * (1 - one.score)
    return wins


def _elo(wins: Wins) -> Wins:
    """Ratings, (K,), of the times that each set won against each other, (K, K)."""
    alpha = 0.0 if _connected(wins) else _ALPHA
    strengths = choix.ilsr_pairwise_dense(wins, alpha=alpha, max_iter=_MOST_STEPS)
    return np.asarray(MEAN + _SCALE * (strengths - strengths.mean()), dtype=np.float64)


def _connected(wins: Wins) -> bool:
    """Whether a chain of wins leads from each set to each other: only then is there an answer."""
    return bool(connected_components(wins, connection="strong")[0] == 1)


def _intervals(
    wins: Wins, resamples: int, seed: int
) -> tuple[list[tuple[float | None, float | None]], int]:
    """Of each set, and how many samples of the raters were regularised; `wins` is (R, K, K)."""
    raters, sets, _ = wins.shape
    if raters < 2 or not resamples:
        return [(None, None)] * sets, 0
    times = np.random.default_rng(seed).multinomial(raters, np.ones(raters) / raters, resamples)
    times, again = np.unique(times, axis=0, return_inverse=True)  # few raters: the same samples
    sampled = np.einsum("sr,rij->sij", times, wins)
    found = np.stack([_elo(sample) for sample in sampled])[again]
    regularised = np.array([not _connected(sample) for sample in sampled])[again]
    low, high = np.quantile(found, (0.025, 0.975), axis=0).tolist()
    return list(zip(low, high, strict=True)), int(regularised.sum())


def _record(judgements: Sequence[Judgement], name: str) -> tuple[int, int, int]:
    """Wins, ties and losses of a set."""
    scores = [one.score for one in judgements if one.first == name]
    scores += [1 - one.score for one in judgements if one.second == name]
    return scores.count(1.0), scores.count(0.5), scores.count(0.0)
