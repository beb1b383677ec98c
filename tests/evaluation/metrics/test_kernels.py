"""KID and CMMD against the library and the definition; the global generators stay as they were."""

import math

import numpy as np
import pytest
import torch

from calotype.errors import UsageError
from calotype.evaluation.metrics.intervals import blocks_by_prompt, jackknife_of
from calotype.evaluation.metrics.kernels import cmmd, kid, kid_by_subsets


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cubic(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


def unbiased(x, y, kernel=cubic):
    n, m = len(x), len(y)
    within = [(kernel(a, a).sum() - kernel(a, a).trace()) / (len(a) * (len(a) - 1)) for a in (x, y)]
    return float(within[0] + within[1] - 2 * kernel(x, y).sum() / (n * m))


def test_kid_of_all_pairs_is_the_librarys_of_one_subset():
    from torchmetrics.image.kid import poly_mmd

    x, y = normal(90, 6), normal(90, 6, seed=1) + 0.3
    assert kid(x, y).value == pytest.approx(float(poly_mmd(x, y)), rel=1e-10)


def test_unequal_counts():
    x, y = normal(130, 6), normal(70, 6, seed=1) + 0.3
    assert kid(x, y).value == pytest.approx(unbiased(x, y), rel=1e-10)
    found = kid_by_subsets(x, y, size=1000, subsets=20)
    assert found.size == 70
    assert found.value == pytest.approx(unbiased(x, y), rel=0.2)


def test_kid_of_equal_distributions_is_about_nothing():
    found = kid(normal(500, 8), normal(500, 8, seed=1))
    assert found.low < 0 < found.high
    assert kid(normal(500, 8), normal(500, 8, seed=1) + 1).low > 0


def test_the_jackknife_from_sums_is_the_one_by_leaving_out():
    x, y = normal(100, 5), normal(80, 5, seed=1) + 0.2
    blocks = blocks_by_prompt([str(row // 2) for row in range(80)], seed=3)
    slow = jackknife_of(lambda rows: unbiased(x, y[rows]), blocks)
    fast = kid(x, y, blocks=blocks)
    assert fast.standard_error == pytest.approx(slow.standard_error, rel=1e-8)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), rel=1e-8)


def test_streamed_equals_whole(monkeypatch):
    from calotype.evaluation.metrics import rows

    x, y = normal(100, 5), normal(80, 5, seed=1) + 0.2
    whole = kid(x, y), cmmd(x, y)
    monkeypatch.setattr(rows, "AT_ONCE", 3)
    for one, other in zip(whole, (kid(x, y), cmmd(x, y)), strict=True):
        assert other.value == pytest.approx(one.value, rel=1e-9)
        assert other.standard_error == pytest.approx(one.standard_error, rel=1e-7)


def test_subsets_come_from_the_seed_and_leave_the_global_generators_alone():
    x, y = normal(60, 4), normal(60, 4, seed=1)
    torch.manual_seed(1), np.random.seed(1)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = kid_by_subsets(x, y, subsets=5, size=20, seed=7)
    assert torch.equal(before, torch.get_rng_state())
    assert (before_numpy == np.random.get_state()[1]).all()
    torch.manual_seed(2)
    assert kid_by_subsets(x, y, subsets=5, size=20, seed=7) == first
    assert kid_by_subsets(x, y, subsets=5, size=20, seed=8) != first


def test_the_library_draws_them_from_the_global_generator():
    from torch import nn
    from torchmetrics.image.kid import KernelInceptionDistance

    metric = KernelInceptionDistance(feature=nn.Identity(), subsets=3, subset_size=20)
    metric.update(normal(60, 4), real=True)
    metric.update(normal(60, 4, seed=1), real=False)
    before = torch.get_rng_state()
    metric.compute()
    assert not torch.equal(before, torch.get_rng_state())


def test_the_deviation_over_subsets_is_no_standard_error():
    x, y = normal(400, 8), normal(400, 8, seed=1) + 0.2
    coarse, fine = (kid_by_subsets(x, y, size=size).deviation for size in (50, 300))
    assert coarse > 2 * fine  # of the very same samples


def test_cmmd_is_the_published_biased_form():
    x, y = normal(40, 6), normal(30, 6, seed=1) + 0.5
    a, b = (z / z.norm(dim=1, keepdim=True) for z in (x, y))

    def mean(p, q):
        return torch.exp(-torch.cdist(p, q).square() / 200).mean()

    expected = 1000 * float(mean(a, a) + mean(b, b) - 2 * mean(a, b))
    assert cmmd(x, y).value == pytest.approx(expected, rel=1e-9)
    assert cmmd(x, x).value == pytest.approx(0, abs=1e-9)
    # Each set is at a right angle to the other: 2000 (1 - exp(-2 / 200)).
    across = cmmd(torch.eye(2)[[0, 0]], torch.eye(2)[[1, 1, 1]])
    assert across.value == pytest.approx(2000 * -math.expm1(-0.01), rel=1e-12)


def test_cmmd_looks_at_directions_only():
    x, y = normal(40, 6), normal(30, 6, seed=1)
    assert cmmd(3 * x, 0.1 * y).value == pytest.approx(cmmd(x, y).value, rel=1e-9)
    with pytest.raises(UsageError, match="row 1 of the embeddings is zero"):
        cmmd(x, torch.eye(6) * torch.tensor([[1.0], [0], [1], [1], [1], [1]]))


@pytest.mark.parametrize("metric", [kid, kid_by_subsets, cmmd])
def test_bad_sets_are_refused(metric):
    x = normal(10, 4)
    with pytest.raises(UsageError, match="got 1 sampled images"):
        metric(x, x[:1])
    with pytest.raises(UsageError, match="got 1 reference images"):
        metric(x[:1], x)
    with pytest.raises(UsageError, match="of 4 and 3 numbers"):
        metric(x, x[:, :3])
    bad = x.clone()
    bad[3, 1] = math.nan
    with pytest.raises(UsageError, match="row 3 of the sampled"):
        metric(x, bad)


def test_constant_images():
    flat = torch.ones(20, 4)
    assert kid(flat, flat).value == pytest.approx(0, abs=1e-12)
    assert cmmd(flat, flat).value == pytest.approx(0, abs=1e-12)
    assert kid(flat, 2 * flat).value == pytest.approx(8 + 125 - 2 * 27)  # (1+1)^3, (4+1)^3, (2+1)^3
