import numpy as np
import pytest

from calotype.evaluation.rating.captions import caption_differences, caption_means
from calotype.evaluation.rating.judgements import CaptionRating

SETS = ("model", "real")


def _ratings(model, real, category=None):
    """Ratings (raters, prompts) of both sets."""
    return [
        CaptionRating(
            f"r{i}", f"{name} {j}", f"{category} {j}", category, name, float(scores[i][j])
        )
        for name, scores in (("model", model), ("real", real))
        for i, row in enumerate(scores)
        for j, score in enumerate(row)
    ]


def test_means_and_their_difference():
    ratings = _ratings([[100, 50], [0, 100]], [[100, 100], [50, 100]])
    model, real = caption_means(ratings, SETS)
    assert (model.set, model.mean.value, model.answers) == ("model", 62.5, (2, 1, 1))
    assert (real.mean.value, real.answers) == (87.5, (3, 1, 0))
    (row,) = caption_differences(ratings, SETS, "real")
    assert (row.set, row.reference, row.difference.value) == ("model", "real", -25.0)
    assert row.difference.low < -25 < row.difference.high


def test_a_difference_is_found_where_means_alone_would_not_tell():
    generator = np.random.default_rng(0)
    hard = generator.choice([0.0, 50.0], (1, 12)).repeat(10, axis=0)  # prompts differ much
    better = np.where(generator.random((10, 12)) < 0.6, hard + 50, hard)
    ratings = _ratings(hard, better)
    model, real = caption_means(ratings, SETS)
    assert model.mean.high > real.mean.low
    (row,) = caption_differences(ratings, SETS, "real")
    assert row.difference.high < 0 and row.difference.p_value < 0.001


def test_categories_have_their_own_rows():
    ratings = _ratings([[100, 0], [50, 0]], [[100, 100], [100, 50]], "x") + _ratings(
        [[100]], [[100]], "y"
    )
    assert [(row.set, row.category) for row in caption_means(ratings, SETS)] == [
        (name, category) for name in SETS for category in (None, "x", "y")
    ]
    rows = caption_differences(ratings, SETS, "real")
    assert [row.category for row in rows] == [None, "x", "y"]
    assert rows[2].difference.value == 0 and rows[2].holm_p == 1


def test_a_set_without_common_prompts_has_no_difference():
    ratings = [
        CaptionRating("r", "1", "p1", None, "model", 100.0),
        CaptionRating("r", "2", "p2", None, "real", 100.0),
    ]
    assert caption_differences(ratings, SETS, "real") == []
    assert len(caption_means(ratings, SETS)) == 2
    assert caption_means([], SETS) == [] and caption_differences([], SETS, "real") == []


def test_a_single_answer_each():
    (row,) = caption_differences(_ratings([[100]], [[100]]), SETS, "real")
    assert row.difference.value == pytest.approx(0)
    assert row.difference.low < -50 and row.difference.high > 50
