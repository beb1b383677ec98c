"""LPIPS is torchmetrics', fed random AlexNet weights; the file is checked before it is opened."""

import pytest
import torch

from calotype.errors import CalotypeError, UsageError
from calotype.evaluation.metrics.lpips import Lpips, load_lpips


@pytest.fixture(scope="module")
def weights():
    from calotype.evaluation.metrics.lpips import _alexnet_features

    torch.manual_seed(4)
    features = _alexnet_features()
    named = {f"features.{name}": value for name, value in features.state_dict().items()}
    return {**named, "classifier.1.weight": torch.zeros(2, 2)}


def images(count, side=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, 3, side, side), generator=generator) * 2 - 1


def test_it_is_the_librarys(weights, monkeypatch):
    from torchmetrics.functional.image import lpips as library

    own = Lpips(weights)
    monkeypatch.setattr(library, "_get_tv_model_features", lambda *_: own.features)
    reference = library._LPIPS(net="alex", pnet_rand=True)
    x, y = images(5), images(5, seed=1)
    expected = reference(x, y)[:, 0, 0, 0]
    assert expected.std() > 0
    torch.testing.assert_close(own(x, y), expected)


def test_equal_images_are_at_no_distance(weights):
    own, x = Lpips(weights), images(3, side=31)
    assert own(x, x).tolist() == [0, 0, 0]
    assert bool((own(x, images(3, side=31, seed=1)) > 0).all())


def test_all_pairs_go_in_order(weights):
    own, x = Lpips(weights), images(4, side=40)
    expected = [own(x[i : i + 1], x[j : j + 1]) for i in range(4) for j in range(i + 1, 4)]
    torch.testing.assert_close(own.pairs(x), torch.cat(expected))


def test_small_or_unlike_images_are_refused(weights):
    own = Lpips(weights)
    for x, y in ((images(2, 30), images(2, 30)), (images(2), images(1))):
        with pytest.raises(UsageError, match="sides of at least 31"):
            own(x, y)


def test_other_weights_are_refused(weights, tmp_path):
    with pytest.raises(UsageError, match="not those of torchvision's AlexNet"):
        Lpips({"features.0.weight": torch.zeros(2)})
    path = tmp_path / "alexnet.pth"
    torch.save(weights, path)
    with pytest.raises(CalotypeError, match=r"has SHA-256 .*expected 7be5be79"):
        load_lpips(path)
    with pytest.raises(CalotypeError):
        load_lpips(tmp_path / "missing.pth")
