import dataclasses

import torch

from calotype.config.schedule import NormalLogSNR, UniformTimes
from calotype.diffusion import CosineSchedule
from calotype.tasks.random_numbers import step_numbers

SHAPE = torch.Size((64, 3, 4, 4))


def test_they_are_a_function_of_seed_and_position(micro):
    config = micro()
    a = step_numbers(config, CosineSchedule(), 40, shape=SHAPE)
    torch.manual_seed(123)  # the global generator has no say
    b = step_numbers(config, CosineSchedule(), 40, shape=SHAPE)
    assert torch.equal(a.eps, b.eps) and torch.equal(a.logsnr, b.logsnr)
    assert torch.equal(a.keep, b.keep)
    c = step_numbers(config, CosineSchedule(), 44, shape=SHAPE)
    d = step_numbers(dataclasses.replace(config, seed=1), CosineSchedule(), 40, shape=SHAPE)
    assert not torch.equal(a.eps, c.eps) and not torch.equal(a.eps, d.eps)


def test_levels_are_stratified(micro):
    numbers = step_numbers(micro(levels=UniformTimes()), CosineSchedule(), 0, shape=SHAPE)
    times = CosineSchedule().time(numbers.logsnr)
    strata = (times * 64).floor().long().sort().values
    assert (strata - torch.arange(64)).abs().max() <= 1
    normal = micro(levels=NormalLogSNR(mean=-0.6, std=3.4))
    levels = step_numbers(normal, CosineSchedule(), 0, shape=SHAPE).logsnr
    assert abs(levels.mean() + 0.6) < 0.3 and abs(levels.std() - 3.4) < 0.4


def test_fraction_of_dropped_captions(micro):
    keep = torch.cat(
        [step_numbers(micro(), CosineSchedule(), p, shape=SHAPE).keep for p in range(100)]
    )
    assert abs(float(keep.float().mean()) - 0.9) < 0.015


def test_parts_join_to_the_whole(micro):
    numbers = step_numbers(micro(), CosineSchedule(), 0, shape=SHAPE)
    parts = [numbers[i : i + 16] for i in range(0, 64, 16)]
    assert torch.equal(torch.cat([part.eps for part in parts]), numbers.eps)
