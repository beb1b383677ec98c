import copy

import pytest
import torch
from torch import nn

from calotype.training.ema import EMA, RAMP


def _set(model, value):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def test_an_old_weight_counts_half_after_the_half_life():
    model = nn.Linear(3, 2).double()
    _set(model, 1.0)
    ema = EMA(model, halflife_images=1000)
    _set(model, 0.0)
    seen = 1_000_000  # far behind the ramp
    for step in range(1, 51):
        ema.update(batch_size=40, images_seen=seen + 40 * step)
        expected = 0.5 ** (40 * step / 1000)
        weight = ema.averaged().weight
        torch.testing.assert_close(weight, torch.full_like(weight, expected), rtol=1e-12, atol=0)


def test_batches_of_any_size_give_the_same_average_of_a_constant():
    values = []
    for batch_size in (10, 50, 250):
        model = nn.Linear(1, 1).double()
        _set(model, 1.0)
        ema = EMA(model, halflife_images=700)
        _set(model, 3.0)
        for step in range(1, 1000 // batch_size + 1):
            ema.update(batch_size=batch_size, images_seen=10**6 + step * batch_size)
        values.append(ema.averaged().bias.item())
    assert values == pytest.approx([3 - 2 * 0.5 ** (1000 / 700)] * 3, rel=1e-12)


def test_initial_weights_are_forgotten_at_once():
    model = nn.Linear(1, 1).double()
    _set(model, 1e6)
    ema = EMA(model, halflife_images=25_000)
    _set(model, 1.0)
    for step in range(1, 4):
        ema.update(batch_size=64, images_seen=64 * step)
    # 1/2^10 of them is left after one step, 1/2^15 after two, ...
    left = 0.5 ** ((1 + 1 / 2 + 1 / 3) / RAMP)
    assert ema.averaged().weight.item() == pytest.approx(1 + (1e6 - 1) * left)
    assert ema.decay(batch_size=64, images_seen=64) == pytest.approx(0.5 ** (1 / RAMP))


def test_the_ramp_ends_at_the_half_life():
    ema = EMA(nn.Linear(1, 1), halflife_images=1000)
    at_end = int(1000 / RAMP)
    assert ema.decay(batch_size=1, images_seen=at_end) == pytest.approx(0.5 ** (1 / 1000))
    assert ema.decay(batch_size=1, images_seen=10 * at_end) == pytest.approx(0.5 ** (1 / 1000))
    assert ema.decay(batch_size=1, images_seen=at_end // 2) == pytest.approx(0.5 ** (2 / 1000))


def test_averaging_leaves_the_model_alone_and_copies_buffers():
    model = nn.BatchNorm2d(2)
    before = copy.deepcopy(model.state_dict())
    ema = EMA(model, halflife_images=10)
    ema.update(batch_size=5, images_seen=1000)
    torch.testing.assert_close(dict(model.state_dict()), dict(before))
    model.running_mean.fill_(7.0)
    ema.update(batch_size=5, images_seen=1005)
    assert ema.averaged().running_mean.tolist() == [7.0, 7.0]
    model.running_mean.fill_(float("nan"))  # a step that is skipped
    ema.return_buffers()
    assert model.running_mean.tolist() == [7.0, 7.0]
    assert not ema.averaged().training
