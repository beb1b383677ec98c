"""What a classifier and a CLIP say of noisy images, as logarithms whose gradient is theirs."""

from types import SimpleNamespace

import pytest
import torch

from calotype.config.adm import AdmLevel
from calotype.config.classifier import ClassifierConfig
from calotype.config.clip import ClipConfig, ImageTowerConfig, NoiseConfig, TextTowerConfig
from calotype.diffusion.gradient_guidance import GradientGuidance
from calotype.errors import UsageError
from calotype.networks.classifier import Classifier
from calotype.networks.clip import Clip
from calotype.text.byte import ByteTextEncoder
from calotype.vision.classifier import ClassifierFile, ClassifierModel
from calotype.vision.clip import ClipFile, ClipModel
from calotype.vision.guides import ClassifierGuide, ClipGuide, random_class

CLASSES = ("cat", "dog", "owl")
LEVELS = torch.tensor([-5.0, 0.0, 4.0])
CAPTIONS, SEEDS = ["a", "b", "a"], [0, 1, 2]
close = torch.testing.assert_close


def stirred(network):
    with torch.no_grad():
        for parameter in network.parameters():  # branches begin at zero
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.fixture
def classifier():
    levels = (AdmLevel(channels=16, blocks=1),)
    config = ClassifierConfig(
        resolution=8, levels=levels, classes=CLASSES, class_count=3, head_dim=16, norm_groups=4
    )
    file = ClassifierFile(format=1, name="animals", sha256="", classifier=config)
    return ClassifierModel(file, stirred(Classifier(config)))


@pytest.fixture
def clip():
    tower = {"width": 16, "layers": 1, "heads": 2}
    config = ClipConfig(
        image=ImageTowerConfig(resolution=8, patch=4, **tower),
        text=TextTowerConfig(states=16, context=16, **tower),
        embed_dim=8,
        noise=NoiseConfig(),
    )
    encoder = ByteTextEncoder(16)
    file = ClipFile(
        format=1, name="noised", text_encoder="bytes:16", sha256="", clip=config,
        text_fingerprint=encoder.fingerprint,
    )  # fmt: skip
    return ClipModel(file, stirred(Clip(config)))


def images():
    return torch.randn(3, 3, 8, 8)


def test_a_classifier_says_log_p_of_each_image_s_class(classifier):
    z = images()
    beliefs = torch.softmax(classifier(z, LEVELS), 1)
    dog = ClassifierGuide(classifier, "dog").log_likelihood(CAPTIONS, SEEDS)
    close(dog(z, LEVELS), beliefs[:, 1].log())
    chosen = ClassifierGuide(classifier, None).log_likelihood(CAPTIONS, SEEDS)
    numbers = [CLASSES.index(random_class(CLASSES, seed)) for seed in SEEDS]
    close(chosen(z, LEVELS), beliefs[torch.arange(3), numbers].log())
    close(chosen.rows(slice(1, 3))(z[1:], LEVELS[1:]), chosen(z, LEVELS)[1:])


def test_a_clip_says_its_own_scale_times_the_cosine(clip):
    z, guide = images(), ClipGuide(clip)
    fit = guide.log_likelihood(CAPTIONS, SEEDS)
    cosines = (clip.embed_image(z, LEVELS) * clip.embed_texts(CAPTIONS)).sum(1)
    close(fit(z, LEVELS), clip.network.log_scale.exp() * cosines)
    close(fit.rows(slice(1, 3))(z[1:], LEVELS[1:]), fit(z, LEVELS)[1:])


def test_captions_are_embedded_once(clip, monkeypatch):
    asked = []
    embed = clip.embed_texts
    monkeypatch.setattr(clip, "embed_texts", lambda texts: asked.extend(texts) or embed(texts))
    guide = ClipGuide(clip)
    for captions in (CAPTIONS, ["b", "c", "c"], CAPTIONS):
        guide.log_likelihood(captions, SEEDS)
    assert asked == ["a", "b", "c"]


def test_the_captions_that_are_kept_are_bounded(clip, monkeypatch):
    monkeypatch.setattr("calotype.vision.guides._MOST_KNOWN", 2)
    guide = ClipGuide(clip)
    z = images()
    for captions in (CAPTIONS, ["c", "d", "c"], CAPTIONS):
        expected = (clip.embed_image(z, LEVELS) * clip.embed_texts(captions)).sum(1)
        found = guide.log_likelihood(captions, SEEDS)(z, LEVELS)
        close(found, clip.network.log_scale.exp() * expected)


@pytest.mark.parametrize("kind", ["classifier", "clip"])
def test_gradients_reach_images_alone(kind, classifier, clip):
    model = classifier if kind == "classifier" else clip
    guide = ClassifierGuide(classifier, "cat") if kind == "classifier" else ClipGuide(clip)
    z, likelihood = images(), guide.log_likelihood(CAPTIONS, SEEDS)
    with torch.no_grad():
        found = GradientGuidance(likelihood, 1.0).gradient(z, LEVELS)
    assert all(p.grad is None and not p.requires_grad for p in model.network.parameters())
    # Against a difference quotient along the gradient itself.
    step = 1e-2 * found / found.flatten(1).norm(dim=1)[:, None, None, None]
    rise = likelihood(z + step, LEVELS) - likelihood(z - step, LEVELS)
    close(rise / 2e-2, found.flatten(1).norm(dim=1), rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("kind", ["classifier", "clip"])
def test_bfloat16_is_near(kind, classifier, clip):
    def gradient(dtype):
        is_class = kind == "classifier"
        guide = (
            ClassifierGuide(classifier, "cat", dtype=dtype)
            if is_class
            else ClipGuide(clip, dtype=dtype)
        )
        likelihood = guide.log_likelihood(CAPTIONS, SEEDS)
        return GradientGuidance(likelihood, 1.0).gradient(z, LEVELS)

    z = images()
    exact, rounded = gradient(torch.float32), gradient(torch.bfloat16)
    assert rounded.dtype == torch.float32
    assert 0 < (exact - rounded).norm() < 0.1 * exact.norm()


def test_what_cannot_guide_is_refused(classifier, clip):
    with pytest.raises(UsageError, match="class 'cow', which the classifier 'animals' was not"):
        ClassifierGuide(classifier, "cow")
    config = SimpleNamespace(noise=None)
    clip.file = SimpleNamespace(name="clean", clip=config)
    with pytest.raises(UsageError, match="'clean', which never saw noise"):
        ClipGuide(clip)


def test_the_class_of_a_seed_stays_what_it_is():
    assert [random_class(CLASSES, seed) for seed in range(6)] == [
        "cat", "dog", "dog", "owl", "owl", "owl",
    ]  # fmt: skip
    counts = [[random_class(CLASSES, s) for s in range(3000)].count(one) for one in CLASSES]
    assert max(abs(count - 1000) for count in counts) < 110  # four standard errors
