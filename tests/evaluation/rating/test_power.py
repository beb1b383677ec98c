import pytest
from scipy.stats import binom

from calotype.errors import UsageError
from calotype.evaluation.rating.power import clustering, judgements_needed


@pytest.mark.parametrize(("rate", "count"), [(0.6, 194), (0.55, 783), (0.4, 194)])
def test_counts_that_are_known(rate, count):
    assert judgements_needed(rate) == count
    assert judgements_needed(rate, clustering=2.5) == pytest.approx(2.5 * count, abs=2)


def test_so_many_find_the_preference_four_times_of_five():
    count = judgements_needed(0.6)
    beyond = binom.ppf(0.975, count, 0.5)
    assert binom.sf(beyond - 1, count, 0.6) == pytest.approx(0.8, abs=0.03)


def test_more_power_and_a_stricter_level_need_more():
    assert judgements_needed(0.6, power=0.9) > judgements_needed(0.6)
    assert judgements_needed(0.6, level=0.01) > judgements_needed(0.6)


def test_clustering_of_a_study():
    assert clustering(1, 1) == 1
    assert clustering(25, 18) == pytest.approx(1 + 17 * 0.02 + 24 * 0.15)
    assert clustering(25, 18, rater_correlation=0.0, prompt_correlation=0.0) == 1


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0, -1.0, float("nan")])
def test_rates_that_cannot_be_found(rate):
    with pytest.raises(UsageError, match="the rate of a preference"):
        judgements_needed(rate)


@pytest.mark.parametrize(
    "wrong", [{"power": 1.0}, {"level": 0.0}, {"clustering": 0.5}, {"clustering": float("inf")}]
)
def test_settings_out_of_range(wrong):
    with pytest.raises(UsageError, match="got"):
        judgements_needed(0.6, **wrong)
    with pytest.raises(UsageError, match="raters and prompts"):
        clustering(0, 3)
