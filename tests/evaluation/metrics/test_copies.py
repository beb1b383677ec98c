"""Copied training images are found, in features and by their looks."""

import pytest
import torch

from calotype.errors import UsageError
from calotype.evaluation.metrics.copies import equal_looks, nearest_others, nearest_training


def test_the_nearest_training_image_by_hand():
    training = torch.tensor([[0.0, 0], [10, 0], [0, 4]])
    found = nearest_training(training, torch.tensor([[0.0, 1], [10, 0]]), typical=3)
    assert found.index.tolist() == [0, 1]
    assert found.distance.tolist() == pytest.approx([1, 0])
    mean = (1 + 3 + 101**0.5) / 3
    assert found.ratio.tolist() == pytest.approx([1 / mean, 0])


def test_a_copy_stands_out_from_held_out_images():
    generator = torch.Generator().manual_seed(0)
    training = torch.randn(400, 32, generator=generator)
    others = torch.randn(20, 32, generator=generator)
    copies = training[100:110] + 0.01 * torch.randn(10, 32, generator=generator)
    found = nearest_training(training, torch.cat([others, copies]))
    assert found.index[20:].tolist() == list(range(100, 110))
    assert float(found.ratio[20:].max()) < 0.1 < 0.5 < float(found.ratio[:20].min())
    usual = nearest_others(training)
    assert not bool((usual.index == torch.arange(400)).any())
    assert float(usual.ratio.min()) > 0.4


def test_all_alike():
    flat = torch.ones(5, 3)
    assert nearest_training(flat, flat).ratio.tolist() == [1] * 5
    assert nearest_others(flat).distance.tolist() == [0] * 5


def test_refusals():
    with pytest.raises(UsageError, match="got 0 reference images"):
        nearest_training(torch.zeros(0, 3), torch.zeros(2, 3))
    with pytest.raises(UsageError, match="got 1 training images"):
        nearest_others(torch.zeros(1, 3))
    with pytest.raises(UsageError, match="0 typical neighbours"):
        nearest_training(torch.zeros(2, 3), torch.zeros(2, 3), typical=0)


def test_equal_looks_through_imagehash():
    import numpy as np

    from calotype.data.looks import looks

    y, x = np.mgrid[:64, :64]
    base = np.full((64, 64, 4), 255, np.uint8)
    base[..., 0] = 2 * x + y
    base[..., 1] = 255 - 3 * y
    hashes = [looks(image) for image in (base, base[::-1].copy(), base)]
    found = equal_looks([hashes[1], hashes[0], hashes[2]], [hashes[0], (1, 2)])
    assert found == [1, None]
