"""The Inception of FID: torch-fidelity's numbers with random weights, and files it must refuse."""

import runpy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from calotype.errors import CalotypeError, UsageError
from calotype.evaluation.features import inception
from calotype.evaluation.features.extractor import Classifier, load_extractor
from calotype.evaluation.features.inception import build_inception, tensorflow_resize
from calotype.evaluation.features.inception_network import Inception

FIXTURES = Path(__file__).parents[2] / "fixtures"
MADE = runpy.run_path(str(FIXTURES / "make_inception.py"))


@pytest.fixture(scope="module")
def weights():
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Inception().state_dict().items()}
    return MADE["random_weights"](shapes)


@pytest.fixture(scope="module")
def extractor(weights, tmp_path_factory):
    """Loaded from a file as from the user's, whose hash alone is another."""
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(weights, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "SHA256_BEGINS", "")
        return load_extractor("inception", weights=path)


@pytest.mark.parametrize("size", MADE["SIZES"])
def test_numbers_are_torch_fidelitys(extractor, size):
    recorded = load_file(FIXTURES / "inception.safetensors")
    found = extractor(MADE["images"](size))
    assert isinstance(extractor, Classifier)
    for name, ours in (("features", found), ("logits", extractor.logits(found))):
        theirs = recorded[f"{name}-{size[0]}"]
        error = (ours - theirs).abs().amax() / theirs.abs().amax()
        assert error < 1e-5, name
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.std()))


def test_the_resize_is_neither_antialiased_nor_centred(extractor):
    """The two resizes that others use give other features: the record would not hold by chance."""
    images = MADE["images"]((320, 173)).float()
    ours = tensorflow_resize(images, 299)
    for antialias in (True, False):
        others = F.interpolate(
            images, (299, 299), mode="bilinear", antialias=antialias, align_corners=False
        )
        assert (others - ours).abs().mean() > 1
        features = in_network(extractor, others)
        assert (features - in_network(extractor, ours)).norm() > 1e-3 * features.norm()


def in_network(extractor, resized):
    with torch.no_grad():
        return extractor._network((resized - 128) / 128)


def test_resize_by_hand():
    """Places 0, 2/3, 4/3 of two pixels: the last neighbour is the edge itself."""
    row = torch.tensor([[0.0, 3.0]]).view(1, 1, 1, 2)
    found = tensorflow_resize(row, 3)
    assert found.shape == (1, 1, 3, 3)
    torch.testing.assert_close(found[0, 0], torch.tensor([0.0, 2.0, 3.0]).expand(3, 3))
    ramp = torch.arange(6.0).expand(1, 1, 6, 6)  # shrinking by two takes every second pixel
    assert torch.equal(tensorflow_resize(ramp, 3)[0, 0, 0], torch.tensor([0.0, 2.0, 4.0]))


def test_the_fingerprint_is_of_the_file(extractor, weights, tmp_path, monkeypatch):
    changed = {**weights, "fc.bias": weights["fc.bias"] + 1}
    torch.save(changed, tmp_path / "other.pth")
    monkeypatch.setattr(inception, "SHA256_BEGINS", "")
    other = load_extractor("inception", weights=tmp_path / "other.pth")
    assert other.fingerprint != extractor.fingerprint and len(other.fingerprint) == 64


def test_another_file_is_refused(tmp_path, weights):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"no weights")
    with pytest.raises(CalotypeError, match=r"expected 6726825d…; get pt_inception"):
        load_extractor("inception", weights=path)
    with pytest.raises(CalotypeError, match="cannot read"):
        load_extractor("inception", weights=tmp_path)
    with pytest.raises(CalotypeError, match="No such file"):
        load_extractor("inception", weights=tmp_path / "none.pth")
    with pytest.raises(UsageError, match="inception=PATH"):
        load_extractor("inception")


class Trap:
    """Unpickling it would touch a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("kind", ["trap", "trap among weights", "garbage", "list"])
def test_hostile_files_are_refused_and_do_nothing(tmp_path, monkeypatch, kind):
    """Even one whose hash fits: what is unpickled is tensors and nothing else."""
    monkeypatch.setattr(inception, "SHA256_BEGINS", "")
    touched, path = tmp_path / "touched", tmp_path / "weights.pth"
    saved = {
        "trap": Trap(touched), "trap among weights": {"fc.bias": Trap(touched)}, "list": [1, 2],
    }  # fmt: skip
    if kind == "garbage":
        path.write_bytes(b"PK\x03\x04" + bytes(100))
    else:
        torch.save(saved[kind], path)
    with pytest.raises(CalotypeError, match="weights") as raised:
        load_extractor("inception", weights=path)
    assert "\n" not in str(raised.value) and not touched.exists()


def test_weights_that_do_not_fit_are_refused(weights):
    name = "Mixed_6b.branch7x7_2.conv.weight"
    others = {
        "names differ in 1": {n: w for n, w in weights.items() if n != name},
        "first 'more'": {**weights, "more": torch.zeros(1)},
        "shape": {**weights, name: weights[name].transpose(2, 3)},
        "float32": {**weights, name: weights[name].half()},
        "not finite": {**weights, "fc.bias": weights["fc.bias"] / 0},
        "another": {**weights, name: "text"},
    }
    for message, changed in others.items():
        with pytest.raises(CalotypeError, match=message):
            build_inception(changed)


def test_a_file_that_counts_batches_is_the_same(weights):
    name = "Conv2d_1a_3x3.bn.num_batches_tracked"
    build_inception({**weights, name: torch.tensor(5)})
