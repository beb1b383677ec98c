import numpy as np
import pytest

from calotype.data.order import Stream, mix, randint, shuffled_index


def order(length, *, seed=0, epoch=0):
    positions = np.arange(length, dtype=np.int64) + epoch * length
    return shuffled_index(positions, seed=seed, length=length)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000, 6335])
@pytest.mark.parametrize("epoch", [-1, 0, 7])
def test_each_epoch_is_a_permutation(length, epoch):
    assert sorted(order(length, epoch=epoch)) == list(range(length))


def test_epochs_and_seeds_differ():
    orders = [tuple(order(50, seed=seed, epoch=epoch)) for seed in range(20) for epoch in range(20)]
    assert len(set(orders)) == len(orders)


def test_a_position_does_not_depend_on_the_others_asked_for():
    together = shuffled_index(np.arange(300), seed=3, length=100)
    alone = [int(shuffled_index(np.array([p]), seed=3, length=100)[0]) for p in range(300)]
    assert together.tolist() == alone


def test_all_orders_of_three_are_about_equally_frequent():
    counts = {}
    epochs = 6000
    for permutation in shuffled_index(np.arange(3 * epochs), seed=1, length=3).reshape(-1, 3):
        counts[tuple(permutation)] = counts.get(tuple(permutation), 0) + 1
    assert len(counts) == 6
    # Chi-squared with 5 degrees of freedom: above 20.5 once in a thousand.
    expected = epochs / 6
    assert sum((c - expected) ** 2 / expected for c in counts.values()) < 20.5


def test_every_example_is_equally_likely_at_every_place():
    length, epochs = 10, 5000
    table = shuffled_index(np.arange(length * epochs), seed=2, length=length).reshape(-1, length)
    counts = np.stack([np.bincount(table[:, place], minlength=length) for place in range(length)])
    expected = epochs / length
    statistic = ((counts - expected) ** 2 / expected).sum()
    # (10 - 1)^2 = 81 degrees of freedom: above 127 once in a thousand.
    assert statistic < 127


def test_neighbours_are_not_kept_together():
    steps = np.diff(order(4096, seed=5))
    assert np.mean(np.abs(steps) == 1) < 0.005
    assert abs(np.corrcoef(np.arange(4096), order(4096, seed=5))[0, 1]) < 0.06


def test_skipping_goes_round_within_the_epoch():
    length = 7
    plain = order(length, seed=9, epoch=2).tolist()
    positions = np.arange(length) + 2 * length
    skipped = shuffled_index(positions, seed=9, length=length, skip=np.full(length, 3))
    assert skipped.tolist() == plain[3:] + plain[:3]


def test_large_sets_need_no_memory_and_huge_seeds_work():
    positions = np.array([0, 1, 10**15])
    found = shuffled_index(positions, seed=2**63 - 1, length=10**9 + 7)
    assert ((found >= 0) & (found < 10**9 + 7)).all()


def test_draws_are_uniform_and_independent_of_each_other():
    positions = np.arange(20000)
    rows = randint(0, positions, stream=Stream.ROW, below=8)
    columns = randint(0, positions, stream=Stream.COLUMN, below=8)
    counts = np.bincount(rows * 8 + columns, minlength=64)
    expected = len(positions) / 64
    # 63 degrees of freedom: above 104 once in a thousand.
    assert ((counts - expected) ** 2 / expected).sum() < 104
    assert not np.array_equal(rows, randint(1, positions, stream=Stream.ROW, below=8))


def test_mix_is_splitmix64():
    # Reference values of SplitMix64 seeded with 1234567 (Vigna's splitmix64.c).
    golden = 0x9E3779B97F4A7C15
    states = [(1234567 + i * golden) % 2**64 for i in range(3)]
    assert mix(np.array(states, dtype=np.uint64)).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]
