"""Precision, recall, density, coverage: known sets, `prdc`, distances float32 gets wrong."""

import math

import pytest
import torch

from calotype.errors import UsageError
from calotype.evaluation.metrics import neighbours
from calotype.evaluation.metrics.intervals import blocks_by_prompt, jackknife_of
from calotype.evaluation.metrics.manifold import manifold, reference_balls
from calotype.evaluation.metrics.neighbours import nearest

NAMES = ("precision", "recall", "density", "coverage")


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def values(reference, sampled, **settings):
    found = manifold(reference_balls(reference), sampled, **settings)
    return {name: getattr(found, name).value for name in NAMES}


def by_prdc(reference, sampled):
    from prdc import compute_prdc

    x, y = reference.double().numpy(), sampled.double().numpy()
    three, five = compute_prdc(x, y, 3), compute_prdc(x, y, 5)
    chosen = {"precision": three, "recall": three, "density": five, "coverage": five}
    return {name: float(found[name]) for name, found in chosen.items()}


@pytest.mark.parametrize(
    ("reference", "sampled"),
    [
        (normal(300, 16), 0.9 * normal(250, 16, seed=1) + 0.2),
        (normal(120, 3), normal(200, 3, seed=1)),
        (normal(200, 40).abs(), normal(200, 40, seed=1).abs() * 1.2),
        (normal(200, 8), normal(200, 8, seed=1) * 0.01),
        (normal(200, 8), normal(200, 8, seed=1) * 4),
        (normal(200, 8) + 300, normal(200, 8, seed=1) + 300),
    ],
)
def test_they_are_those_of_prdc(reference, sampled):
    assert values(reference, sampled) == pytest.approx(by_prdc(reference, sampled), abs=1e-12)


def test_streamed_equals_whole(monkeypatch):
    from calotype.evaluation.metrics import rows

    reference, sampled = normal(90, 6), normal(70, 6, seed=1)
    whole = manifold(reference_balls(reference), sampled)
    monkeypatch.setattr(rows, "AT_ONCE", 11)
    assert manifold(reference_balls(reference), sampled) == whole


def test_equal_sets():
    x = normal(60, 5)
    found = values(x, x)
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)


def test_collapsed_samples_are_precise_and_recall_nothing():
    reference = normal(100, 5)
    found = values(reference, reference[:1].repeat(80, 1) + 1e-3 * normal(80, 5, seed=1))
    assert found["precision"] == 1
    assert found["recall"] < 0.05
    assert found["coverage"] < 0.2
    same = values(reference, reference[:1].repeat(80, 1))  # all equal: their balls are empty
    assert (same["precision"], same["recall"]) == (1, 0)


def test_spread_samples_recall_all_and_are_not_precise():
    found = values(normal(100, 5), 20 * normal(100, 5, seed=1))
    assert found["recall"] > 0.9
    assert found["precision"] < 0.1
    assert found["density"] < 0.1


def test_far_away_nothing_is_shared():
    assert set(values(normal(50, 5), normal(50, 5, seed=1) + 100).values()) == {0}


def test_on_a_line_by_hand():
    reference = torch.tensor([[0.0], [1], [2], [3], [10], [20], [30]])
    balls = reference_balls(reference, precision_k=1, coverage_k=2)
    assert balls.near.tolist() == [1, 1, 1, 1, 49, 100, 100]
    assert balls.far.tolist() == [4, 1, 1, 4, 64, 100, 400]
    sampled = torch.tensor([[0.5], [0.6], [16.5], [100]])  # own balls: 0.1, 0.1, 15.9, 83.5
    found = manifold(balls, sampled)
    assert found.precision.value == 3 / 4  # 16.5 lies within 7 of 10 and within 10 of 20
    assert found.density.value == pytest.approx((2 + 2 + 3 + 0) / 2 / 4)
    assert found.coverage.value == pytest.approx(5 / 7)  # not 2 and 3
    assert found.recall.value == pytest.approx(6 / 7)  # 0 lies 16.5 from 16.5


def test_the_jackknife_of_each_is_the_one_by_leaving_out():
    reference, sampled = normal(80, 4), normal(60, 4, seed=1)
    prompts = [str(row // 3) for row in range(60)]
    blocks = blocks_by_prompt(prompts, blocks=6)
    balls = reference_balls(reference)
    found = manifold(balls, sampled, blocks=blocks)
    for name in NAMES:
        slow = jackknife_of(
            lambda rows, name=name: getattr(manifold(balls, sampled[rows]), name).value, blocks
        )
        fast = getattr(found, name)
        assert fast.value == slow.value
        assert fast.standard_error == pytest.approx(slow.standard_error, rel=1e-9, abs=1e-12)
        assert slow.standard_error > 0


def close_pairs():
    """Rows far from the origin with near neighbours: float32 products lose the differences."""
    base = 1000 + normal(200, 64)
    return base + 0.01 * normal(200, 64, seed=1)


def test_float32_cdist_picks_wrong_neighbours_and_ours_does_not():
    x = close_pairs()
    exact = (x.double()[:, None] - x.double()).square().sum(2).fill_diagonal_(math.inf)
    wrong = torch.cdist(x, x, compute_mode="use_mm_for_euclid_dist").fill_diagonal_(math.inf)
    right, squared = exact.argmin(1), exact.min(1).values
    assert (wrong.argmin(1) != right).any()
    found = nearest(x, x, 1, same=True)
    assert torch.equal(found.index[:, 0], right)
    assert torch.equal(found.squared[:, 0], squared)


def test_distances_within_rounding_are_searched_again_in_float64():
    # One row far off keeps the centre away from a tight cluster, where float32 is blind.
    x = torch.cat([1e-4 * normal(60, 32), torch.full((1, 32), 500.0)])
    exact = (x.double()[:, None] - x.double()).square().sum(2).fill_diagonal_(math.inf)
    centre = neighbours.centre_of(x)
    tile = neighbours.load_tile(x, torch.arange(60), centre)
    blind = tile.products(tile).fill_diagonal_(math.inf)
    assert (blind.argmin(1) != exact[:60, :60].argmin(1)).any()
    found = nearest(x, x, 3, same=True)
    expected = exact.topk(3, largest=False)
    assert torch.equal(found.index[:, :3], expected.indices)
    assert torch.equal(found.squared[:, :3], expected.values)


@pytest.mark.parametrize("at_once", [7, 50, 2048])
def test_neighbours_in_tiles_of_any_size(at_once, monkeypatch):
    from calotype.evaluation.metrics import rows

    monkeypatch.setattr(rows, "AT_ONCE", at_once)
    x, queries = normal(120, 5), normal(33, 5, seed=1)
    within = (x.double()[:, None] - x.double()).square().sum(2).fill_diagonal_(math.inf)
    across = (queries.double()[:, None] - x.double()).square().sum(2)
    for found, exact in ((nearest(x, x, 4, same=True), within), (nearest(queries, x, 4), across)):
        expected = exact.topk(4, largest=False)
        assert torch.equal(found.index[:, :4], expected.indices)
        assert torch.equal(found.squared[:, :4], expected.values)


def test_pairs_at_the_very_limit_are_not_nearer():
    x = close_pairs()
    rows = torch.arange(len(x))
    tile = neighbours.load_tile(x, rows, neighbours.centre_of(x))
    exact = (x.double()[:, None] - x.double()).square().sum(2)
    limits = exact[:, 7:8].clone()  # each row's distance from row 7
    inside = neighbours.Pairs(tile, tile).nearer(limits)
    assert torch.equal(inside, exact < limits)
    assert not inside[:, 7].any()


def test_ties_and_repeated_rows():
    steps = torch.arange(4.0)
    grid = torch.cartesian_prod(steps, steps)
    assert values(grid, grid) == pytest.approx(by_prdc(grid, grid), abs=1e-12)
    doubled = grid.repeat(2, 1)
    assert values(doubled, grid) == pytest.approx(by_prdc(doubled, grid), abs=1e-12)


def test_few_or_bad_rows_are_refused():
    balls = reference_balls(normal(20, 4))
    with pytest.raises(UsageError, match="got 3 sampled images; expected at least 4"):
        manifold(balls, normal(3, 4))
    with pytest.raises(UsageError, match="got 5 reference images; expected at least 6"):
        reference_balls(normal(5, 4))
    with pytest.raises(UsageError, match="of 4 and 5 numbers"):
        manifold(balls, normal(9, 5))
    bad = normal(9, 4)
    bad[8] = math.inf
    with pytest.raises(UsageError, match="row 8 of the sampled"):
        manifold(balls, bad)
    with pytest.raises(UsageError, match="got k = 0 and 5"):
        reference_balls(normal(9, 4), precision_k=0)
    small = manifold(balls, normal(4, 4))
    assert small.recall.low is None  # without a block too few would be left


def test_constant_images():
    flat = torch.ones(20, 4)
    assert set(values(flat, flat).values()) == {0}  # balls of no size hold nothing, as in prdc
    assert by_prdc(flat, flat) == values(flat, flat)
