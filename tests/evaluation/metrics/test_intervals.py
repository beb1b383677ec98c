"""Intervals in closed form; that they cover in simulation; and why nothing is bootstrapped."""

import math

import pytest
import torch
from scipy import stats

from calotype.errors import UsageError
from calotype.evaluation.metrics.frechet import Gaussian, fid
from calotype.evaluation.metrics.intervals import (
    blocks_by_prompt,
    blocks_in_order,
    clustered_fraction,
    clustered_mean,
    jackknife,
    jackknife_of,
    paired_difference,
)
from calotype.evaluation.metrics.kernels import kid


def test_blocks_in_order():
    assert blocks_in_order(6, 3).tolist() == [0, 0, 1, 1, 2, 2]
    sizes = torch.bincount(blocks_in_order(107))
    assert len(sizes) == 20 and int(sizes.max() - sizes.min()) == 1
    assert len(torch.bincount(blocks_in_order(9))) == 4
    assert blocks_in_order(1).tolist() == [0]


def test_blocks_hold_whole_prompts():
    prompts = [f"p{row // 8}" for row in range(800)]
    blocks = blocks_by_prompt(prompts, seed=1)
    of_prompt = {prompt: set() for prompt in prompts}
    for prompt, block in zip(prompts, blocks.tolist(), strict=True):
        of_prompt[prompt].add(block)
    assert all(len(found) == 1 for found in of_prompt.values())
    assert torch.bincount(blocks).tolist() == [40] * 20
    assert blocks_by_prompt(prompts[::-1], seed=1).tolist() == blocks.tolist()[::-1]
    assert blocks_by_prompt(prompts, seed=2).tolist() != blocks.tolist()


def test_prompts_of_unequal_counts_leave_no_block_empty():
    blocks = blocks_by_prompt(["a"] * 90 + ["b", "c", "d", "e"] * 2, blocks=5)
    counts = torch.bincount(blocks)
    assert int(counts.min()) > 0 and int(counts.max()) >= 90


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = jackknife_of(lambda rows: float(values[rows].mean()), torch.arange(100))
    error = float(values.std()) / 10
    assert found.standard_error == pytest.approx(error)
    half = stats.t.ppf(0.975, 99) * error
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half))


def test_without_enough_blocks_there_is_no_interval():
    for replicates in ([], [1.0], [1.0] * 4, [1.0] * 5 + [math.nan]):
        assert jackknife(1.0, replicates, 9).low is None
    assert jackknife(1.0, [1.0] * 5, 9).low == 1


def test_clusters_of_one_give_the_usual_interval_of_a_mean():
    values = [1.0, 2.0, 4.0, 9.0]
    found = clustered_mean(values, list("abcd"))
    error = float(torch.tensor(values, dtype=torch.float64).std()) / 2
    assert found.value == 4
    assert found.standard_error == pytest.approx(error)
    assert found.high == pytest.approx(4 + stats.t.ppf(0.975, 3) * error)


def test_clustered_errors_are_those_of_statsmodels():
    import numpy as np
    import statsmodels.api as sm

    generator = np.random.default_rng(0)
    clusters = generator.integers(0, 30, 200)
    values = generator.normal(size=200) + generator.normal(size=30)[clusters]
    fitted = sm.OLS(values, np.ones(200)).fit(
        cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True
    )
    names = [str(cluster) for cluster in clusters]
    found = clustered_mean(torch.tensor(values), names)
    assert found.standard_error == pytest.approx(float(fitted.bse[0]), rel=1e-9)
    assert (found.low, found.high) == pytest.approx(tuple(fitted.conf_int()[0]), rel=1e-9)


def test_repeating_samples_of_a_prompt_makes_nothing_surer():
    hits, prompts = [True, False, True, True, False, True], list("abcdef")
    once = clustered_fraction(hits, prompts)
    often = clustered_fraction(hits * 50, prompts * 50)
    assert (often.low, often.high) == pytest.approx((once.low, once.high), rel=0.02)
    assert often.standard_error == pytest.approx(once.standard_error)


def test_all_hits_are_no_certainty():
    found = clustered_fraction([True] * 80, [str(row // 4) for row in range(80)])
    assert found.value == found.high == 1
    assert found.low == pytest.approx(1 / (1 + stats.t.ppf(0.975, 19) ** 2 / 20))  # Wilson's
    assert clustered_fraction([False] * 80, [str(row) for row in range(80)]).low == 0
    assert clustered_fraction([True] * 3, ["a"] * 3).low is None


def test_bad_values_are_refused():
    with pytest.raises(UsageError, match="got 0 values"):
        clustered_mean([], [])
    with pytest.raises(UsageError, match="got 2 values of 1 samples"):
        clustered_fraction([True, False], ["a"])


def test_differences_are_paired():
    first = {(f"p{n // 2}", n % 2): float(n) for n in range(20)}
    second = {pair: value - 0.5 for pair, value in reversed(first.items())}
    found = paired_difference(first, second)
    assert (found.value, found.standard_error, found.count) == (0.5, 0, 20)
    del second["p3", 1]
    with pytest.raises(UsageError, match=r"20 and 19 samples.*\('p3', 1\).*--common"):
        paired_difference(first, second)
    assert paired_difference(first, second, common=True).count == 19
    with pytest.raises(UsageError, match="without a prompt and seed in common"):
        paired_difference(first, {("q", 0): 1.0}, common=True)


def _coverage(truth, intervals):
    return sum(found.low <= truth <= found.high for found in intervals) / len(intervals)


def _rows(trial, count, dimension=64):
    generator = torch.Generator().manual_seed(trial)
    return torch.randn(count, dimension, generator=generator, dtype=torch.float64)


def _clustered(trial, mean, prompts=40):
    """Hits of 8 samples a prompt whose chances differ (beta-distributed), truth `mean`."""
    chances = stats.beta.rvs(2 * mean, 2 * (1 - mean), size=prompts, random_state=trial)
    hits = stats.bernoulli.rvs(chances.repeat(8), random_state=10_000 + trial)
    return hits.tolist(), [str(row // 8) for row in range(8 * prompts)]


@pytest.mark.parametrize("mean", [0.6, 0.93])
def test_clustered_fractions_cover_the_truth(mean):
    trials = [_clustered(trial, mean) for trial in range(400)]
    assert _coverage(mean, [clustered_fraction(*trial) for trial in trials]) >= 0.92
    naive = [clustered_fraction(hits, [str(n) for n in range(len(hits))]) for hits, _ in trials]
    assert _coverage(mean, naive) < 0.85


def _kid_intervals(trials, count):
    reference = _rows(0, 200)
    return [kid(reference, 1.1 * _rows(trial, count) + 0.1) for trial in range(1, trials)]


def test_kid_covers_its_truth_quickly():
    found = _kid_intervals(40, 100)
    truth = sum(one.value for one in found) / len(found)
    assert _coverage(truth, found) >= 0.85


@pytest.mark.slow
def test_kid_covers_its_truth():
    truth = kid(_rows(0, 200), 1.1 * _rows(10**6, 40_000) + 0.1).value  # it is unbiased
    assert _coverage(truth, _kid_intervals(400, 400)) >= 0.92


def _fid_intervals(trials, count):
    eye = torch.eye(64, dtype=torch.float64)
    reference = Gaussian(10**6, torch.zeros(64, dtype=torch.float64), eye)
    return [fid(reference, 1.1 * _rows(trial, count) + 0.1) for trial in range(trials)]


@pytest.mark.slow
def test_fid_covers_its_expectation_at_this_count():
    found = _fid_intervals(400, 400)
    expectation = sum(one.value for one in found) / len(found)
    assert expectation > 1.2 * 64 * (0.1**2 + 0.1**2)  # which is not the truth at infinity
    assert _coverage(expectation, found) >= 0.92


@pytest.mark.slow
def test_why_fid_is_not_bootstrapped():
    """Truth 1.44, estimates 2.39 on average, bootstrap 3.33: the bias comes twice."""
    eye = torch.eye(64, dtype=torch.float64)
    reference = Gaussian(10**6, torch.zeros(64, dtype=torch.float64), eye)
    truth = 64 * (1 - 0.85) ** 2
    held, bias, further = 0, [], []
    for trial in range(20):
        rows = 0.85 * _rows(trial, 1000)
        generator = torch.Generator().manual_seed(trial)
        again = [
            fid(
                reference,
                rows[torch.randint(1000, (1000,), generator=generator)],
                blocks=torch.zeros(1000, dtype=torch.long),
            ).value
            for _ in range(100)
        ]
        values = torch.tensor(again)
        low, high = values.quantile(torch.tensor([0.025, 0.975])).tolist()
        estimate = fid(reference, rows)
        held += low <= truth <= high
        bias.append(estimate.value - truth)
        further.append(float(values.mean()) - estimate.value)
    assert held == 0
    assert min(further) > 0.5 * sum(bias) / len(bias) > 0
