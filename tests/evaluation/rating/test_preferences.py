import pytest

from calotype.evaluation.rating.judgements import Judgement
from calotype.evaluation.rating.preferences import holm, preferences


def judgement(score, rater="r0", prompt="p0", *, category=None, question="quality", pair="ab"):
    return Judgement(rater, prompt, prompt, category, question, pair[0], pair[1], score)


def _many(scores, **facts):
    """Five raters in turn, a prompt for each five answers."""
    return [judgement(s, f"r{i % 5}", f"p{i // 5}", **facts) for i, s in enumerate(scores)]


def test_rates_and_fractions():
    (row,) = preferences(_many([1.0] * 12 + [0.5] * 4 + [0.0] * 4))
    assert row.rate.value == pytest.approx(0.7)  # ties half
    assert [part.value for part in row.fractions] == pytest.approx([0.6, 0.2, 0.2])
    assert sum(part.value for part in row.fractions) == pytest.approx(1)
    # Exact sign test of 12 of 16: 2 * sum_{k >= 12} C(16, k) / 2^16.
    assert row.sign_p == pytest.approx(2 * (1820 + 560 + 120 + 16 + 1) / 2**16)
    assert (row.first, row.second, row.question, row.category) == ("a", "b", "quality", None)


def test_all_ties():
    (row,) = preferences(_many([0.5] * 10))
    assert row.rate.value == 0.5 and row.sign_p is None
    assert row.rate.p_value == 1 and row.fractions[1].value == 1


def test_no_judgements():
    assert preferences([]) == []


def test_sides_are_symmetric():
    scores = [1.0, 0.5, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.5, 1.0]
    (row,) = preferences(_many(scores))
    (mirrored,) = preferences(_many([1 - score for score in scores]))
    assert mirrored.rate.low == pytest.approx(1 - row.rate.high)
    assert mirrored.rate.p_value == pytest.approx(row.rate.p_value)


def test_categories_are_corrected_by_holm_and_one_answer_is_a_category():
    answers = [
        *_many([1.0, 1.0, 1.0, 0.0, 1.0] * 4, category="colours"),
        *_many([1.0, 0.0, 0.5, 1.0, 0.0] * 4, category="counting"),
        judgement(1.0, category="<script>"),
        judgement(1.0),
    ]
    whole, *rows = preferences(answers)
    assert whole.category is None and whole.rate.count == 42
    assert [row.category for row in rows] == ["colours", "counting", "<script>"]
    p_values = sorted(row.rate.p_value for row in rows)
    smallest = min(rows, key=lambda row: row.rate.p_value)
    assert smallest.holm_p == pytest.approx(min(1, 3 * p_values[0]))
    assert rows[2].rate.count == 1 and rows[2].holm_p == 1


def test_a_single_category_is_no_category():
    assert len(preferences(_many([1.0, 0.0], category="one"))) == 1


def test_questions_and_pairs_stand_apart():
    answers = (
        _many([1.0] * 5) + _many([0.0] * 5, question="alignment") + _many([0.5] * 5, pair="ac")
    )
    rows = preferences(answers)
    assert [(row.question, row.second) for row in rows] == [
        ("quality", "b"),
        ("quality", "c"),
        ("alignment", "b"),
    ]


def test_holm_by_hand():
    assert holm([0.01, 0.04, None, 0.02]) == pytest.approx([0.04, 0.08, None, 0.06])
    assert holm([]) == []
