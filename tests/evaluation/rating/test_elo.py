import math
from itertools import combinations

import numpy as np
import pytest

from calotype.evaluation.rating.elo import MEAN, elo_table
from calotype.evaluation.rating.judgements import Judgement


def _games(first, second, scores, rater="r"):
    return [
        Judgement(f"{rater}{i % 10}", f"t{i}", f"p{i}", None, "better", first, second, score)
        for i, score in enumerate(scores)
    ]


def _of(table):
    return {rating.set: rating for rating in table.ratings}


def test_two_sets_in_closed_form():
    table = elo_table(_games("a", "b", [1.0] * 30 + [0.0] * 10), resamples=50)
    ratings = _of(table)
    assert ratings["a"].elo - ratings["b"].elo == pytest.approx(400 * math.log10(3), abs=1e-4)
    assert (ratings["a"].elo + ratings["b"].elo) / 2 == pytest.approx(MEAN)
    assert table.alpha == 0 and [rating.set for rating in table.ratings] == ["a", "b"]
    assert (ratings["b"].wins, ratings["b"].ties, ratings["b"].losses) == (10, 0, 30)


def test_a_tie_is_half_a_win_for_both():
    table = elo_table(_games("a", "b", [1.0] * 10 + [0.5] * 20), resamples=0)
    ratings = _of(table)  # 20 of 30 points
    assert ratings["a"].elo - ratings["b"].elo == pytest.approx(400 * math.log10(2), abs=1e-4)
    even = _of(elo_table(_games("a", "b", [0.5] * 7), resamples=10))
    assert even["a"].elo == pytest.approx(even["b"].elo) and even["a"].low == pytest.approx(MEAN)


def test_strengths_are_recovered():
    truth = {"a": 1200.0, "b": 1050.0, "c": 950.0, "d": 800.0}
    generator = np.random.default_rng(0)
    games = []
    for first, second in combinations(truth, 2):
        chance = 1 / (1 + 10 ** ((truth[second] - truth[first]) / 400))
        games += _games(first, second, (generator.random(600) < chance).astype(float))
    table = elo_table(games, resamples=200)
    assert [rating.set for rating in table.ratings] == list(truth)
    for rating in table.ratings:
        assert abs(rating.elo - truth[rating.set]) < 25
        assert rating.low < truth[rating.set] < rating.high
    assert table.regularised_resamples == 0


def test_the_same_seed_gives_the_same_intervals():
    games = _games("a", "b", np.random.default_rng(0).integers(0, 3, 200) / 2)
    assert elo_table(games, resamples=20) == elo_table(games, resamples=20)
    assert elo_table(games, resamples=20) != elo_table(games, resamples=20, seed=1)


@pytest.mark.parametrize("scores", [[1.0] * 200, [0.0]])
def test_who_never_won_is_regularised_and_it_is_said(scores):
    table = elo_table(_games("a", "b", scores), resamples=20)
    assert table.alpha > 0
    best, worst = table.ratings
    assert best.elo > worst.elo and math.isfinite(best.elo) and best.elo - worst.elo < 4000


def test_sets_that_never_met_have_finite_ratings():
    games = _games("a", "b", [1.0, 0.0]) + _games("c", "d", [1.0, 0.5])
    table = elo_table(games, resamples=20)
    assert table.alpha > 0 and all(math.isfinite(rating.elo) for rating in table.ratings)


def test_one_rater_has_no_interval_and_no_games_no_table():
    one = [Judgement("r", "t", "p", None, "better", "a", "b", score) for score in (1.0, 0.0)]
    table = elo_table(one)
    assert table.ratings[0].low is None and table.resamples == 0
    assert elo_table([]) is None
