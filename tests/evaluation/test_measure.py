"""Numbers of sets whose numbers are known beforehand."""

import dataclasses
import json
import math

import pytest
import torch
from eyes import NAMED, ColourEye
from PIL import Image

from calotype.errors import UsageError
from calotype.evaluation.features import extractor
from calotype.evaluation.features.extractor import ExtractorSpec
from calotype.evaluation.measure import measure, open_reference
from calotype.evaluation.options import MeasureOptions
from calotype.evaluation.samples import open_samples
from calotype.evaluation.samples.folders import import_samples
from calotype.evaluation.samples.manifest import write_manifest
from calotype.evaluation.samples.prompts import write_prompts
from calotype.evaluation.suites.suite import Prompt, Suite
from calotype.generation.executors import Executor

NAMES = list(NAMED)


def suite_of(captions, categories=("warm", "cold")):
    prompts = [
        Prompt(f"p{n}", caption, categories[n % len(categories)])
        for n, caption in enumerate(captions)
    ]
    return Suite("colours", tuple(prompts), "0" * 64)


def samples_of(source, folder, suite):
    import_samples(source, suite, folder / "samples")
    write_prompts(folder / "samples", suite)
    return open_samples(folder)


@pytest.fixture
def look(eyes, colours, tmp_path):
    """Measure the images in `source` as samples of captions, beside real images; the results."""

    def run(source, captions=None, *, reference=True, **options):
        suite = suite_of(captions or [f"a {name} square" for name in NAMES])
        samples = samples_of(source, tmp_path / source.name, suite)
        settings = MeasureOptions(
            side=16,
            extractors=(ExtractorSpec("lite0"),),
            reference=colours / "real" if reference is True else reference or None,
            root=tmp_path / "cache",
            **options,
        )
        return measure(samples, settings, reference=open_reference(settings, Executor()))

    return run


CLIP = ExtractorSpec("clip")


def test_the_reference_as_samples_is_no_distance_away(look, colours):
    found = look(colours / "real").results
    assert found.number("FID", "lite0").value == pytest.approx(0, abs=0.02)  # of traces of 3e5
    for name in ("precision", "recall", "coverage"):
        assert found.number(name, "lite0").value == pytest.approx(1), name
    assert found.number("colour shift").value == 0
    assert found.number("SSIM").value == pytest.approx(1)
    assert found.number("PSNR").value == 100 and "equal images" in found.number("PSNR").notes[0]


def test_the_numbers_are_those_of_the_features(look, colours, noisy, tmp_path):
    """FID against the closed form of Gaussians; features are mean colours of quarters."""
    source = noisy(tmp_path / "noisy", seed=3)
    found = look(source).results
    eye, means = ColourEye(), []
    for folder, names in ((source, [f"{n}-0" for n in NAMES]), (colours / "real", NAMES)):
        import numpy as np

        images = [np.asarray(Image.open(folder / f"{name}.png")).copy() for name in names]
        means.append(eye(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)).double())
    sampled, real = (x - x.mean(0) for x in means)
    a, b = (x.T @ x / (len(x) - 1) for x in (sampled, real))
    values, vectors = torch.linalg.eigh(b)
    root = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ a @ root).clamp(min=0).sqrt().sum()
    shift = (means[0].mean(0) - means[1].mean(0)).square().sum()
    expected = float(shift + a.trace() + b.trace() - 2 * cross)
    assert found.number("FID", "lite0").value == pytest.approx(expected, rel=1e-4, abs=1e-2)


def test_every_number_says_how_it_was_found(look, colours):
    found = look(colours / "real", clip=CLIP).results
    labels = {number.label for number in found.numbers if number.group is None}
    assert {"FID[lite0, N=8, 16px]", "CLIP score[clip-colours, N=8, 16px]"} <= labels
    assert any("below 5 times the dimension" in n for n in found.number("FID", "lite0").notes)
    assert all(math.isfinite(number.value) for number in found.numbers)
    json.dumps(dataclasses.asdict(found.number("FID", "lite0")), allow_nan=False)


def test_captions_that_fit_and_captions_that_are_exchanged(look, colours):
    order = sorted(NAMES)  # as the files are read: no captions beside them are used
    fitting = look(colours / "real", clip=CLIP)
    score = fitting.results.number("CLIP score", "clip-colours")
    assert score.value == pytest.approx(100, abs=0.01) and score.low > 99.9
    assert fitting.results.number("R-precision", "clip-colours").value == 1
    bare = colours / "bare"
    if not bare.exists():
        bare.mkdir()
        for number, name in enumerate(order):
            (bare / f"{number}.png").write_bytes((colours / "real" / f"{name}.png").read_bytes())
    exchanged = [f"a {name} square" for name in (*order[1:], order[0])]
    wrong = look(bare, exchanged, clip=CLIP).results
    assert wrong.number("R-precision", "clip-colours").value == 0
    assert wrong.number("CLIP score", "clip-colours").value < 90


def test_categories_have_numbers_of_their_own(look, noisy, tmp_path):
    found = look(noisy(tmp_path / "noisy", seed=7), clip=CLIP)
    warm, cold = (found.results.number("CLIP score", "clip-colours", g) for g in ("warm", "cold"))
    column = torch.from_numpy(found.scores.columns["CLIP score clip-colours"])
    assert warm.count == cold.count == 4
    assert warm.value == pytest.approx(float(column[::2].mean()))
    assert cold.value == pytest.approx(float(column[1::2].mean())) and warm.value != cold.value


def test_seeds_have_a_spread(look, noisy, tmp_path):
    source = noisy(tmp_path / "three", seed=5, each=3)
    captions = [f"a {name} square" for name in NAMES]
    found = look(source, captions, clip=CLIP).results
    for name, features in (("FID", "lite0"), ("CLIP score", "clip-colours")):
        number = found.number(name, features)
        assert number.count == 24 and len(number.seeds) == 3, name
        assert number.spread == pytest.approx(
            float(torch.tensor(number.seeds, dtype=torch.float64).std())
        )
    assert found.number("within-prompt distance", "lite0").value > 0
    score = found.number("CLIP score", "clip-colours")
    assert sum(score.seeds) / 3 == pytest.approx(score.value)


def test_the_clip_that_chose_the_images_is_no_judge_of_them(eyes, colours, tmp_path):
    from calotype.vision.clip import load_clip

    suite = suite_of([f"a {name} square" for name in NAMES])
    samples = samples_of(colours / "real", tmp_path / "set", suite)
    options = MeasureOptions(side=16, extractors=(), clip=CLIP, root=tmp_path / "cache")
    for clip_sha256, marked in ((load_clip(None).fingerprint, True), ("0" * 64, False)):
        best = {"best_of": {"clip_sha256": clip_sha256, "count": 4}}
        write_manifest(samples.folder, dataclasses.replace(samples.manifest, recipe=best))
        found = measure(open_samples(samples.folder), options).results
        for name in ("CLIP score", "R-precision"):
            notes = found.number(name, "clip-colours").notes
            assert ("no judge: it chose each image among 4" in notes) == marked


def test_copies_are_found_by_features_and_by_looks(look, colours, noisy, tmp_path):
    """Two of eight samples are training images."""
    training = noisy(tmp_path / "training", seed=1, each=4, noise=120)
    source = noisy(tmp_path / "some", seed=2, noise=120)
    for name in NAMES[:2]:
        (source / f"{name}-0.png").write_bytes((training / f"{name}-3.png").read_bytes())
    found = look(source, training=training)
    assert found.results.number("copies", "lite0").value == pytest.approx(0.25)
    assert found.results.number("equal looks").value == pytest.approx(0.25)
    distance = found.scores.columns["distance to it lite0"]
    assert (distance[:2] == 0).all() and (distance[2:] > 0).all()
    place = found.scores.columns["training image of equal looks"]
    assert sum(math.isfinite(one) for one in place) == 2


def test_a_colour_shift_is_told_by_channel(look, colours, tmp_path):
    darker = tmp_path / "darker"
    darker.mkdir()
    for name, (red, green, blue) in NAMED.items():
        image = Image.new("RGB", (16, 16), (red, max(green - 40, 0), blue))
        image.save(darker / f"{name}.png")
        (darker / f"{name}.txt").write_text(f"a {name} square")
    number = look(darker).results.number("colour shift")
    mean = sum(max(green - 40, 0) - green for _, green, _ in NAMED.values()) / 8
    assert number.value == pytest.approx(-mean)
    assert number.notes == (f"levels of 255: red +0.0, green {mean:+.1f}, blue +0.0",)


def test_grids_are_sought_at_the_pixels_of_earlier_stages(eyes, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 200, (6, 48, 48, 3), generator=random, dtype=torch.uint8)
    pixels[:, ::4, :] += 50
    for number, image in enumerate(pixels.numpy()):
        Image.fromarray(image).save(folder / f"{number}.png")
    samples = samples_of(folder, tmp_path / "set", suite_of([f"c {n}" for n in range(6)]))
    options = MeasureOptions(side=48, extractors=(), root=tmp_path / "cache")
    assert [n.metric for n in measure(samples, options).results.numbers] == []  # of no stages
    recipe = {"stages": [{"resolution": r} for r in (3, 12, 24, 32, 48)]}
    write_manifest(samples.folder, dataclasses.replace(samples.manifest, recipe=recipe))
    found = measure(open_samples(samples.folder), options).results
    values = {number.metric: number.value for number in found.numbers}
    assert list(values) == ["grid artefacts, period 4", "grid artefacts, period 2"]
    assert values["grid artefacts, period 4"] > 1.8
    assert found.numbers[0].label == "grid artefacts, period 4[N=6, 48px]"


def test_pairs_need_one_real_image_of_each_caption(look, colours, noisy, tmp_path):
    source = noisy(tmp_path / "noisy", seed=4)
    paired = look(source).results
    mean = 20 * math.log10(255) - 10 * math.log10(800)  # noise of at most 40 levels
    assert paired.number("PSNR").value > mean and 0 < paired.number("SSIM").value < 1
    twice = noisy(tmp_path / "twice", seed=6, each=2)
    assert look(source, reference=twice).results.number("PSNR") is None


def test_lpips_needs_the_users_file(look, noisy, tmp_path):
    (tmp_path / "alexnet.pth").write_bytes(b"no")
    source = noisy(tmp_path / "two", seed=5, each=2)
    from calotype.errors import CalotypeError

    with pytest.raises(CalotypeError, match="7be5be79"):
        look(source, alexnet=tmp_path / "alexnet.pth")


def test_lpips_is_of_the_images_of_a_prompt(look, noisy, tmp_path, monkeypatch):
    """A distance that is known: that of the mean colours."""

    class Known:
        def pairs(self, images):
            assert images.shape[1:] == (3, 31, 31) and -1 <= images.min() < images.max() <= 1
            return torch.pdist(images.mean((2, 3)))

    monkeypatch.setattr("calotype.evaluation.measure.load_lpips", lambda path: Known())
    source = noisy(tmp_path / "two", seed=5, each=2)
    number = look(source, alexnet=tmp_path / "any").results.number("LPIPS diversity", "alexnet")
    assert number.count == 8 and 0 < number.value < 0.2 and number.side == 31
    one = noisy(tmp_path / "one", seed=5)
    found = look(one, alexnet=tmp_path / "any").results
    assert found.number("LPIPS diversity", "alexnet") is None


def test_features_are_computed_once(look, colours, monkeypatch):
    first = look(colours / "real", clip=CLIP).results

    def never(self, images):
        raise AssertionError("computed")

    monkeypatch.setattr(ColourEye, "__call__", never)
    extractor._kept.cache_clear()
    assert look(colours / "real", clip=CLIP).results == first


def test_features_that_are_not_finite_name_the_image(look, colours, monkeypatch):
    from calotype.errors import NotFiniteError

    monkeypatch.setattr(ColourEye, "__call__", lambda self, x: torch.full((len(x), 12), torch.nan))
    with pytest.raises(NotFiniteError, match="lite0 of '000000-0' and 7 more"):
        look(colours / "real")


def test_two_sets_of_one_extractor_are_not_mixed(eyes, colours, tmp_path):
    with pytest.raises(UsageError, match="expected a CLIP"):
        suite = suite_of([f"a {name} square" for name in NAMES])
        samples = samples_of(colours / "real", tmp_path / "set", suite)
        options = MeasureOptions(
            side=16, extractors=(), clip=ExtractorSpec("lite0"), root=tmp_path / "cache"
        )
        measure(samples, options)
