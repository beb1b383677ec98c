"""How many judgements a study needs."""

from calotype.evaluation.rating.plan import needed
from calotype.evaluation.rating.power import clustering, judgements_needed


def test_more_raters_of_the_same_prompts_need_more(make_study, tmp_path):
    _, study = make_study("drawbench", raters=25)
    sixty, fifty_five = needed(study)
    assert 190 <= sixty.independent <= 200 and 770 <= fifty_five.independent <= 800
    assert sixty.clustered == judgements_needed(0.6, clustering=clustering(25, 6))
    assert sixty.clustered > 4 * sixty.independent  # 1 + 5 * 0.02 + 24 * 0.15


def test_captions_are_no_pairs(make_study):
    _, study = make_study("caption", "a")
    assert needed(study) == []
