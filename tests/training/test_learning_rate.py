import math

import pytest

from calotype.config.optimizer import OptimizerConfig
from calotype.training.learning_rate import decay_start, learning_rate

CONFIG = OptimizerConfig(learning_rate=1.0, warmup_images=100, decay_from=0.6, final_rate=0.01)


def test_warm_up_is_linear():
    rates = [learning_rate(CONFIG, seen, 10_000) for seen in (0, 10, 50, 99, 100)]
    assert rates == pytest.approx([1 / 101, 11 / 101, 51 / 101, 100 / 101, 1.0])


def test_constant_up_to_and_at_the_start_of_the_decay():
    assert {learning_rate(CONFIG, seen, 10_000) for seen in (100, 3000, 6000)} == {1.0}
    assert learning_rate(CONFIG, 6001, 10_000) < 1.0


def test_decay_is_half_a_cosine_to_the_final_rate():
    assert learning_rate(CONFIG, 8000, 10_000) == pytest.approx(0.01 + 0.99 / 2)
    assert learning_rate(CONFIG, 7000, 10_000) == pytest.approx(
        0.01 + 0.99 * (1 + math.cos(math.pi / 4)) / 2
    )
    assert learning_rate(CONFIG, 10_000, 10_000) == pytest.approx(0.01)


def test_a_longer_run_has_the_same_past():
    for seen in range(0, 6001, 500):
        assert learning_rate(CONFIG, seen, 10_000) == learning_rate(CONFIG, seen, 50_000)


def test_no_decay_no_warm_up():
    config = OptimizerConfig(learning_rate=0.5, warmup_images=0, decay_from=1.0)
    assert {learning_rate(config, seen, 1000) for seen in (0, 500, 1000)} == {0.5}
    assert decay_start(config, 1000) == 1000
