"""Classifier folders, what a classifier is told of levels, and the published sizes."""

import dataclasses
import json

import pytest
import torch

from calotype.config.adm import AdmLevel
from calotype.config.classifier import ClassifierConfig, ClassifierTraining
from calotype.config.schedule import DiscreteScheduleConfig
from calotype.diffusion.named import build_schedule
from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.networks.classifier import Classifier
from calotype.training.recipes import load_recipe
from calotype.vision.classifier import (
    ClassifierFile,
    ClassifierModel,
    load_classifier,
    save_classifier,
)

LEVELS = (AdmLevel(channels=16, blocks=1), AdmLevel(channels=32, blocks=1, attention="joined"))


def small(**changes):
    settings = {"levels": LEVELS, "classes": ("cat", "dog", "owl"), "class_count": 3}
    settings |= {"resolution": 16, "fold": 2, "head_dim": 16, "norm_groups": 4, **changes}
    return ClassifierConfig(**settings)


def model(**changes):
    torch.manual_seed(1)
    config = small(**changes)
    network = Classifier(config)
    with torch.no_grad():
        for parameter in network.parameters():  # branches begin at zero
            parameter.add_(0.1 * torch.randn_like(parameter))
    return ClassifierModel(
        ClassifierFile(format=1, name="small", sha256="", classifier=config), network
    )


def images(count=3, side=16):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("name", "millions"),
    [("classifier-64", 65.4), ("classifier-128", 42.6), ("classifier-256", 54.1)],
)
def test_presets_have_the_published_counts(name, millions):
    """Those of the published files, from the published code."""
    config = load_recipe(name).stages[0]
    assert isinstance(config, ClassifierTraining)
    with torch.device("meta"):
        found = sum(p.numel() for p in Classifier(config.classifier).parameters())
    assert round(found / 1e6, 1) == millions


def test_gradients_reach_every_weight_and_the_images():
    network = model().network.requires_grad_(True)
    z = images().requires_grad_(True)
    network(z, torch.tensor([0.0, 500.0, 999.0])).logsumexp(1).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())
    assert z.grad.abs().amax((1, 2, 3)).min() > 0


@pytest.mark.parametrize("schedule", ["cosine", "linear", DiscreteScheduleConfig()])
def test_it_is_told_the_level(schedule):
    classifier = model(schedule=schedule)
    told = []
    classifier.network.level.register_forward_hook(lambda _, got, __: told.append(got[0]))
    if isinstance(schedule, DiscreteScheduleConfig):
        steps = torch.tensor([0, 417, 999])
        classifier(images(), build_schedule(schedule).logsnr_at(steps))
        assert torch.equal(told[0], steps.float())
    else:
        classifier(images(), torch.tensor([30.0, 0.0, -25.0]))
        assert torch.equal(told[0], torch.tensor([0.0, 500.0, 1000.0]))
    z, level = images(1), torch.tensor([2.0])
    assert not torch.allclose(classifier(z, level), classifier(z, level - 4))


def test_a_folder_is_read_as_it_was_written(tmp_path):
    written = model()
    save_classifier(tmp_path / "classifier", written)
    z, logsnr = images(), torch.tensor([4.0, 0.0, -4.0])
    for place in ("classifier", "."):  # as a checkpoint has it
        read = load_classifier(tmp_path / place)
        torch.testing.assert_close(read(z, logsnr), written(z, logsnr))
        assert read.classes == ("cat", "dog", "owl") and read.resolution == 16
        assert len(read.fingerprint) == 64 and read.name == "small"
    assert read.numbers(["owl", "cat"]).tolist() == [2, 0]


def test_guidance_needs_a_gradient_of_the_images_alone():
    classifier, z = model(), images().requires_grad_(True)
    classifier(z, torch.zeros(3))[:, 1].sum().backward()
    assert z.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in classifier.network.parameters())


def test_what_does_not_fit_is_refused(tmp_path):
    classifier = model()
    with pytest.raises(UsageError, match=r"got images of 32x16 .*; expected 16x16"):
        classifier(torch.zeros(1, 3, 16, 32), torch.zeros(1))
    with pytest.raises(UsageError, match=r"got the class 'fox', .*: 'cat', 'dog', 'owl'"):
        classifier.numbers(["cat", "fox"])
    with pytest.raises(UsageError, match=r"did you mean 'owl'\?$"):
        classifier.numbers(["owls"])
    with pytest.raises(UsageError, match="got classifier"):
        load_classifier(tmp_path / "none")
    save_classifier(tmp_path / "classifier", classifier)
    file = tmp_path / "classifier/classifier.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "format": 2}))
    with pytest.raises(ConfigError, match="format=2"):
        load_classifier(tmp_path / "classifier")
    settings["classifier"] |= {"classes": [], "class_count": 0}
    file.write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="0 named classes"):
        load_classifier(tmp_path / "classifier")
    file.write_text(json.dumps({**settings, "classifier": dataclasses.asdict(small())}))
    (tmp_path / "classifier/weights.safetensors").write_bytes(b"")
    with pytest.raises(CalotypeError):
        load_classifier(tmp_path / "classifier")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("cat",), "class_count": 1}, "got the class cat alone"),
        ({"class_count": 4}, "class_count=4 with 3 classes"),
        ({"classes": ("cat", "cat", "dog")}, "two classes of one name"),
        ({"resolution": 18}, "got resolution 18; expected a multiple of 4"),
        ({"levels": (AdmLevel(channels=16, blocks=1, attention="cross"),)}, "cross attention"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        small(**changes)
