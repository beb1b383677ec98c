import pytest

from calotype.evaluation.rating.judgements import (
    CaptionRating,
    ControlAnswer,
    ControlRecord,
    Judgement,
    StudyResults,
    control_records,
    excluded_raters,
    in_order,
)


def _judgement(rater="r", first="a", second="b", score=1.0):
    return Judgement(rater, "t", "p", None, "quality", first, second, score)


def _controls(rater, passed, failed):
    answers = [True] * passed + [False] * failed
    return [ControlAnswer(rater, f"c{i}", answer) for i, answer in enumerate(answers)]


def test_who_fails_over_a_fifth_is_left_out():
    controls = _controls("fifth", 4, 1) + _controls("more", 3, 1) + _controls("good", 5, 0)
    assert excluded_raters(controls) == {"more"}
    assert excluded_raters(controls, limit=0.1) == {"more", "fifth"}
    assert excluded_raters([]) == frozenset()
    assert control_records(controls) == [
        ControlRecord("more", 4, 1, True),
        ControlRecord("fifth", 5, 1, False),
        ControlRecord("good", 5, 0, False),
    ]


def test_answers_of_those_left_out_are_gone_and_their_controls_stay():
    results = StudyResults(
        name="s", protocol="drawbench", sets=("a", "b"), planned=2, stopping_rule="two", sha256="0",
        closed=False, judgements=(_judgement("x"), _judgement("y")),
        ratings=(CaptionRating("x", "t", "p", None, "a", 50.0),),
        controls=tuple(_controls("x", 0, 1)),
    )  # fmt: skip
    kept = results.without(excluded_raters(results.controls))
    assert [one.rater for one in kept.judgements] == ["y"] and kept.ratings == ()
    assert kept.controls == results.controls


def test_pairs_are_put_in_the_order_of_the_study():
    one, two = _judgement(), _judgement(first="b", second="a", score=0.0)
    assert in_order([one, two], ("a", "b")) == [one, one]
    tie = _judgement(first="b", second="a", score=0.5)
    assert in_order([tie], ("a", "b"))[0].score == 0.5


@pytest.mark.parametrize("score", [0.7, 2.0, -1.0, float("nan")])
def test_other_scores_are_refused(score):
    with pytest.raises(ValueError, match="a score is one of"):
        _judgement(score=score)
    with pytest.raises(ValueError, match="a score is one of"):
        CaptionRating("r", "t", "p", None, "a", score)
