"""Any size: what is generated for it, and how it is cut from that."""

import numpy as np
import pytest

from calotype.cascade.find import open_cascade
from calotype.errors import UsageError
from calotype.serving.engine.sizes import SizePlan, cut, plan_size


@pytest.fixture(scope="module")
def configs():
    return open_cascade(None).config.stages  # 64, 256, 1024


@pytest.mark.parametrize(
    ("size", "plan"),
    [
        ((64, 64), SizePlan(64, (64, 64))),
        ((256, 256), SizePlan(256, (256, 256))),
        ((1024, 1024), SizePlan(1024, (1024, 1024))),
        ((512, 512), SizePlan(1024, (1024, 1024))),
        ((16, 16), SizePlan(64, (64, 64))),
        ((192, 320), SizePlan(256, (192, 320))),
        ((1024, 1536), SizePlan(1024, (1024, 1536))),
        ((1024, 1792), SizePlan(1024, (768, 1408), ((256, 448),))),
        ((2048, 2048), SizePlan(1024, (1024, 1024), ((512, 512),))),
        ((16, 2048), SizePlan(1024, (512, 2048))),
        ((2048, 16), SizePlan(1024, (2048, 512))),
        ((1025, 1025), SizePlan(1024, (1152, 1152))),
    ],
)
def test_what_is_generated(configs, size, plan):
    assert plan_size(size, configs) == plan


def test_every_size_is_reached_at_a_scale_that_was_trained(configs):
    numbers = np.random.default_rng(0)
    for height, width in numbers.integers(16, 2049, (300, 2)).tolist():
        plan = plan_size((height, width), configs)
        made = plan.size
        assert all(side % 32 == 0 for side in made) or plan.stop_at < 1024
        assert 0.45 <= made[0] * made[1] / plan.stop_at**2 <= 1.6
        assert max(made) <= 4.3 * min(made)
        reached = made
        for smaller in plan.smaller:
            assert smaller[0] <= reached[0] and smaller[1] <= reached[1]
            reached = (4 * smaller[0], 4 * smaller[1])
        assert reached[0] >= height and reached[1] >= width


def test_a_base_alone_does_not_go_beyond_itself(configs):
    assert plan_size((72, 80), configs[:1]).size == (72, 80)
    with pytest.raises(UsageError, match="got size 200x100"):
        plan_size((100, 200), configs[:1])


def test_cut_averages_areas_and_keeps_the_middle():
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2, :2] = 200
    assert cut(pixels, (2, 2))[..., 0].tolist() == [[200, 0], [0, 0]]
    assert cut(pixels, (4, 4)) is pixels
    wide = np.arange(10, dtype=np.uint8)[None, :, None].repeat(2, 0).repeat(3, 2)
    assert cut(wide, (2, 4))[0, :, 0].tolist() == [3, 4, 5, 6]
    assert cut(wide, (4, 20)).shape == (4, 20, 3)
    checks = np.indices((8, 8)).sum(0)[..., None].repeat(3, 2).astype(np.uint8) % 2 * 200
    assert cut(checks, (4, 4)).tolist() == np.full((4, 4, 3), 100).tolist()
