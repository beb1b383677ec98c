"""FID in closed form for Gaussians, equal to torchmetrics', marked, refused; what its traps do."""

import math

import pytest
import torch
from torch import nn

from calotype.errors import UsageError
from calotype.evaluation.metrics.frechet import (
    Gaussian,
    fid,
    fid_infinity,
    fit_gaussian,
    frechet_distance,
)
from calotype.evaluation.metrics.intervals import blocks_by_prompt


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whitened(count, dimension):
    """Rows whose mean is exactly 0 and whose covariance is exactly the identity."""
    x = normal(count, dimension)
    x = x - x.mean(0)
    factor = torch.linalg.cholesky(x.T @ x / (count - 1))
    return torch.linalg.solve_triangular(factor, x.T, upper=False).T


def torchmetrics_fid(reference, sampled):
    from torchmetrics.image.fid import FrechetInceptionDistance

    feature = nn.Identity()
    feature.num_features = reference.shape[1]
    metric = FrechetInceptionDistance(feature=feature).set_dtype(torch.float64)
    metric.update(reference, real=True)
    metric.update(sampled, real=False)
    return metric.compute()


def test_equal_sets_are_at_no_distance():
    x = normal(200, 8)
    assert fid(fit_gaussian(x), x).value == pytest.approx(0, abs=1e-10)


def test_shifted_and_scaled_gaussians_in_closed_form():
    x, shift = whitened(300, 8), torch.linspace(0, 2, 8, dtype=torch.float64)
    reference = fit_gaussian(x)
    assert fid(reference, x + shift).value == pytest.approx(float(shift.square().sum()), abs=1e-9)
    # Of covariances I and s^2 I: D (1 - s)^2.
    assert fid(reference, 3 * x).value == pytest.approx(8 * 4, abs=1e-9)
    # Of ones that commute: the sum of (a - b)^2 of the deviations.
    scales = torch.linspace(0.5, 2, 8, dtype=torch.float64)
    expected = float((scales - 1).square().sum())
    assert fid(reference, x * scales).value == pytest.approx(expected, abs=1e-9)


def test_covariances_that_do_not_commute():
    # tr((A B)^(1/2)) of 2x2 matrices is sqrt(tr(AB) + 2 sqrt(det(AB))).
    a = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, -0.7], [-0.7, 3.0]], dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    product = a @ b
    trace = math.sqrt(product.trace() + 2 * math.sqrt(torch.linalg.det(product)))
    found = frechet_distance(Gaussian(9, zero, a), Gaussian(9, zero, b))
    assert found == pytest.approx(float(a.trace() + b.trace()) - 2 * trace, abs=1e-12)


@pytest.mark.parametrize(
    ("count", "others", "within"), [(400, 400, 1e-9), (150, 700, 1e-9), (20, 300, 1e-6)]
)
def test_it_is_the_librarys(count, others, within):
    # Of fewer rows than dimensions, either way of taking roots magnifies the rounding of zeros.
    mix = normal(24, 24, seed=3)
    reference, sampled = normal(count, 24).abs() @ mix, normal(others, 24, seed=1) @ mix + 0.2
    expected = float(torchmetrics_fid(reference, sampled))
    found = fid(fit_gaussian(reference), sampled)
    assert found.value == pytest.approx(expected, rel=within)
    assert found.count == others


def test_the_library_casts_to_the_features_type_and_we_do_not():
    reference, sampled = normal(400, 8).float(), (1e-3 * normal(400, 8, seed=1) + 1).float()
    exact = float(torchmetrics_fid(reference.double(), sampled.double()))
    cast = torchmetrics_fid(reference, sampled)
    assert cast.dtype == torch.float32
    assert float(cast) != pytest.approx(exact, rel=1e-9)
    assert fid(fit_gaussian(reference), sampled).value == pytest.approx(exact, rel=1e-10)


def test_far_from_the_origin_nothing_is_lost():
    x, y = normal(400, 8), 1.1 * normal(400, 8, seed=1)
    near, far = fid(fit_gaussian(x), y).value, fid(fit_gaussian(x + 1e6), y + 1e6).value
    assert far == pytest.approx(near, rel=1e-6)
    # How much the other one loses is a matter of the processor: 3e-4 and more were seen.
    assert float(torchmetrics_fid(x + 1e6, y + 1e6)) != pytest.approx(near, rel=1e-5)


def test_the_jackknife_by_subtraction_is_the_one_by_leaving_out():
    from calotype.evaluation.metrics.intervals import jackknife_of

    reference, sampled = fit_gaussian(normal(300, 6)), normal(200, 6, seed=1)
    blocks = blocks_by_prompt([str(row // 4) for row in range(200)], seed=5)
    slow = jackknife_of(
        lambda rows: frechet_distance(reference, fit_gaussian(sampled[rows])), blocks
    )
    fast = fid(reference, sampled, blocks=blocks)
    assert fast.standard_error == pytest.approx(slow.standard_error, rel=1e-8)
    assert (fast.low, fast.high) == pytest.approx((slow.low, slow.high), rel=1e-8)
    assert fast.low < fast.value < fast.high


def test_streamed_equals_whole(monkeypatch):
    from calotype.evaluation.metrics import rows

    x, y = normal(300, 5), normal(210, 5, seed=1)
    whole = fid(fit_gaussian(x), y)
    monkeypatch.setattr(rows, "AT_ONCE", 7)
    parts = fid(fit_gaussian(x), y)
    assert parts.value == pytest.approx(whole.value, rel=1e-9)
    assert parts.standard_error == pytest.approx(whole.standard_error, rel=1e-6)


def test_few_samples_are_marked():
    reference = fit_gaussian(normal(100, 8))
    assert fid(reference, normal(40, 8)).note is None
    assert fid(reference, normal(39, 8)).note == "N=39 is below 5 times the dimension, 8"
    few = fit_gaussian(normal(20, 8))
    assert fid(few, normal(400, 8)).note == "N=20 is below 5 times the dimension, 8"


def test_of_two_samples_there_is_a_number_and_no_interval():
    found = fid(fit_gaussian(normal(100, 2)), normal(2, 2))
    assert math.isfinite(found.value)
    assert found.standard_error is found.low is found.high is None


def test_in_one_block_there_is_a_number_and_one_solution(monkeypatch):
    from calotype.evaluation.metrics import frechet

    reference, x = fit_gaussian(normal(100, 3)), normal(60, 3, seed=1)
    whole, calls = fid(reference, x), []
    solve = frechet.frechet_distance
    monkeypatch.setattr(frechet, "frechet_distance", lambda *both: calls.append(1) or solve(*both))
    found = fid(reference, x, blocks=torch.zeros(60, dtype=torch.long))
    assert (found.value, found.low, len(calls)) == (whole.value, None, 1)


def test_constant_images():
    flat = torch.ones(50, 4)
    reference = fit_gaussian(flat)
    assert fid(reference, flat).value == pytest.approx(0, abs=1e-12)
    assert fid(reference, flat + 1).value == pytest.approx(4)


def test_fid_at_infinity_takes_the_samples_bias_away():
    reference = Gaussian(10**6, torch.zeros(32).double(), torch.eye(32).double())
    sampled = normal(2000, 32)
    found = fid_infinity(reference, sampled, seed=1)
    assert found.counts[0] == 200 and found.counts[-1] == 2000 and len(found.counts) == 15
    assert fid(reference, sampled).value > 0.1  # of equal distributions: bias alone
    assert abs(found.value) < 0.25 * fid(reference, sampled).value
    assert found.slope > 0
    # The same subsets, to the rounding of the library that solves for the line.
    assert found.fids == pytest.approx(fid_infinity(reference, sampled, seed=1).fids, rel=1e-9)
    assert found.fids != pytest.approx(fid_infinity(reference, sampled, seed=2).fids, rel=1e-3)


def test_a_line_over_one_over_n_is_found_exactly(monkeypatch):
    from calotype.evaluation.metrics import frechet

    monkeypatch.setattr(frechet, "frechet_distance", lambda _, sampled: 3 + 500 / sampled.count)
    found = fid_infinity(fit_gaussian(normal(50, 2)), normal(400, 2))
    assert (found.value, found.slope) == pytest.approx((3, 500))


@pytest.mark.parametrize(
    ("sampled", "message"),
    [
        (torch.zeros(1, 4), "got 1 sampled images; expected at least 2"),
        (torch.zeros(0, 4), "got 0 sampled images; expected at least 2"),
        (torch.zeros(5, 3), "got features of 4 and 3 numbers an image"),
        (torch.zeros(5), "expected"),
        (torch.tensor([[0.0] * 4, [0, 0, math.nan, 0], [1] * 4]), "row 1 of the sampled features"),
        (torch.tensor([[0.0] * 4, [1] * 4, [0, 0, 0, math.inf]]), "row 2 of the sampled features"),
    ],
)
def test_what_cannot_be_measured_is_an_error_of_one_line(sampled, message):
    with pytest.raises(UsageError, match=message) as caught:
        fid(fit_gaussian(normal(50, 4)), sampled)
    assert "\n" not in str(caught.value)


def test_the_row_of_a_bad_feature_is_named_in_any_tile():
    features = torch.zeros(5000, 1)
    features[4321] = math.nan
    with pytest.raises(UsageError, match="row 4321 of the reference features"):
        fit_gaussian(features)
