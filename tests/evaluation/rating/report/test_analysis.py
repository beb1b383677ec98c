import pytest

from calotype.evaluation.rating.judgements import Judgement
from calotype.evaluation.rating.report.analysis import analyse


def test_a_known_preference_is_held_and_two_raters_are_left_out(study, judge):
    judgements, controls = judge(25, 18, 0.65, failing=("r3", "r7"), seed=1)
    report = analyse(study(judgements, controls=controls))
    assert set(report.left_out) == {"r3", "r7"}
    rate = report.kept.preferences[0].rate
    assert rate.low < 0.65 < rate.high and (rate.raters, rate.count) == (23, 23 * 18)
    assert report.everyone.preferences[0].rate.count == 25 * 18
    assert report.everyone.preferences[0].rate.value < rate.value
    (verdict,) = report.kept.verdicts
    assert verdict.winner == "a" and verdict.reached == 23 * 18
    assert "a is preferred to b in" in verdict.sentence and "95 % interval" in verdict.sentence


def test_below_the_planned_number_no_winner_is_named(study, judge):
    judgements, _ = judge(20, 10, 0.9)
    for planned, winner in ((201, None), (200, "a")):
        (verdict,) = analyse(study(judgements, planned=planned)).kept.verdicts
        assert verdict.winner == winner and verdict.complete == (winner is not None)
    (verdict,) = analyse(study(judgements, planned=1000)).kept.verdicts
    assert verdict.sentence.endswith("no winner is named, with 200 of 1,000 planned answers.")
    assert "%" not in verdict.sentence


def test_answers_of_those_left_out_do_not_reach_the_number(study, judge):
    judgements, controls = judge(10, 10, 0.9, failing=("r0",))
    report = analyse(study(judgements, controls=controls, planned=100))
    assert report.everyone.verdicts[0].complete and not report.kept.verdicts[0].complete


def test_the_second_may_win_and_its_interval_is_its_own(study, judge):
    judgements, _ = judge(20, 10, 0.2)
    report = analyse(study(judgements))
    (verdict,) = report.kept.verdicts
    rate = report.kept.preferences[0].rate
    assert verdict.winner == "b"
    assert f"b is preferred to a in {100 * (1 - rate.value):.1f} %" in verdict.sentence
    assert f"{100 * (1 - rate.high):.1f} to {100 * (1 - rate.low):.1f}" in verdict.sentence


def test_no_preference_has_no_winner(study, judge):
    judgements, _ = judge(20, 10, 0.5)
    (verdict,) = analyse(study(judgements)).kept.verdicts
    assert verdict.winner is None and "which holds 50 %" in verdict.sentence


def test_all_ties_have_no_winner(study, judge):
    judgements, _ = judge(20, 10, 0.5, ties=1.0)
    report = analyse(study(judgements))
    assert report.kept.verdicts[0].winner is None and report.needed == []
    assert report.kept.agreement[0].alpha is None


def test_many_pairs_are_corrected(study, judge):
    """A p-value of about 0.03 names a winner alone, and none among three pairs."""
    scores = [1.0] * 13 + [0.0] * 4
    pairs = (("a", "b"), ("a", "c"), ("b", "c"))
    answers = [
        Judgement(f"r{i}", f"t{i}{pair}", f"p{i}", None, "better", *pair, score)
        for pair in pairs
        for i, score in enumerate(scores if pair == ("a", "b") else [0.0, 1.0] * 8)
    ]
    alone = analyse(study(answers[:17], planned=10)).kept
    assert alone.preferences[0].rate.p_value < 0.05 and alone.verdicts[0].winner == "a"
    report = analyse(study(answers, planned=10, sets=("a", "b", "c"), protocol="elo")).kept
    assert report.verdicts[0].winner is None
    assert "not after Holm's correction" in report.verdicts[0].sentence
    assert report.elo["better"].ratings[0].elo > 1000


def test_pairs_come_in_the_order_of_the_study(study, judge):
    answers = [
        Judgement("r", "t", "p", None, "better", first, second, 1.0)
        for first, second in (("c", "b"), ("b", "a"))
    ]
    report = analyse(study(answers, sets=("a", "b", "c"), protocol="elo")).kept
    assert [(row.first, row.second, row.rate.value) for row in report.preferences] == [
        ("a", "b", 0.0),
        ("b", "c", 0.0),
    ]


def test_the_judgements_needed_follow_from_the_clustering(study, judge):
    judgements, _ = judge(20, 10, 0.6)
    report = analyse(study(judgements))
    effect = report.kept.preferences[0].rate.design_effect
    assert [need.independent for need in report.needed] == [194, 783]
    for need in report.needed:
        assert need.clustered == pytest.approx(need.independent * max(1, effect), abs=1)


def test_captions(study, rate):
    facts = {"protocol": "caption", "sets": ("model", "real"), "reference": "real"}
    report = analyse(study(ratings=rate(10, 12), planned=120, **facts))
    (verdict,) = report.kept.verdicts
    difference = report.kept.differences[0].difference
    assert verdict.winner == "real" and difference.high < 0
    assert f"by {-difference.value:.1f} points (95 % interval {-difference.high:.1f} to" in (
        verdict.sentence
    )
    short = analyse(study(ratings=rate(10, 12), planned=121, **facts))
    assert short.kept.verdicts[0].winner is None and "120 of 121" in short.kept.verdicts[0].sentence
    same = analyse(study(ratings=rate(10, 12, model=0.6, real=0.6), planned=120, **facts))
    assert "no difference is shown" in same.kept.verdicts[0].sentence


def test_nothing_at_all(study):
    report = analyse(study())
    assert report.kept.verdicts == [] and report.kept.answers == 0 and report.needed == []
