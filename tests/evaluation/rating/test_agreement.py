import pytest

from calotype.evaluation.rating.agreement import caption_agreement, judgement_agreement
from calotype.evaluation.rating.judgements import CaptionRating, Judgement


def _table(rows, question="quality"):
    """Scores by trial; None did not answer."""
    return [
        Judgement(f"r{i}", f"t{j}", f"p{j}", None, question, "a", "b", score)
        for j, scores in enumerate(rows)
        for i, score in enumerate(scores)
        if score is not None
    ]


def test_full_agreement_is_one():
    (found,) = judgement_agreement(_table([[1.0, 1.0], [0.0, 0.0], [0.5, 0.5]]))
    assert found.alpha == pytest.approx(1) and (found.trials, found.answers) == (3, 6)


def test_two_raters_by_hand():
    # Nominal and ordinal agree on two values. Coincidences: 4 agree on 1, 2 on 0, 2 + 2 differ;
    # alpha = 1 - 9 * 4 / (2 * 6 * 4) with n = 10.
    (found,) = judgement_agreement(
        _table([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    )
    assert found.alpha == pytest.approx(1 - 9 * 4 / (2 * 6 * 4))


def test_neighbours_agree_more_than_opposites():
    near = judgement_agreement(_table([[1.0, 0.5], [0.0, 0.0], [1.0, 1.0]]))[0].alpha
    far = judgement_agreement(_table([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]))[0].alpha
    assert far < near < 1


@pytest.mark.parametrize(
    "rows", [[], [[1.0]], [[1.0], [0.0]], [[1.0, 1.0], [1.0, 1.0]], [[1.0, 1.0], [0.0]]]
)
def test_what_cannot_be_known_is_none(rows):
    for found in judgement_agreement(_table(rows)):
        assert found.alpha is None


def test_questions_stand_apart_and_captions_have_theirs():
    found = judgement_agreement(
        _table([[1.0, 1.0], [0.0, 0.0]]) + _table([[1.0, 0.0], [0.0, 1.0]], "alignment")
    )
    assert [one.question for one in found] == ["quality", "alignment"]
    assert found[0].alpha == pytest.approx(1) and found[1].alpha < 0
    ratings = [
        CaptionRating(f"r{i}", f"t{j}", f"p{j}", None, "a", score)
        for j, score in enumerate((100.0, 0.0))
        for i in range(2)
    ]
    assert caption_agreement(ratings).alpha == pytest.approx(1)
    assert caption_agreement([]).alpha is None
