"""`--classifier` and `--clip-guidance` of sample and edit: what they do, note and refuse."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.cascade import Cascade, Stage, save_cascade
from calotype.cascade.guide import Pull
from calotype.cascade.png import read_recipe, write_png
from calotype.config.adm import AdmConfig, AdmLevel
from calotype.config.classifier import ClassifierConfig
from calotype.config.clip import ClipConfig, ImageTowerConfig, NoiseConfig, TextTowerConfig
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.generation.cascade import settle
from calotype.generation.request import GuideRequest, Request
from calotype.networks.classifier import Classifier
from calotype.networks.clip import Clip
from calotype.text.byte import ByteTextEncoder
from calotype.vision.classifier import (
    ClassifierFile,
    ClassifierModel,
    load_classifier,
    save_classifier,
)
from calotype.vision.clip import ClipFile, ClipModel, load_clip, save_clip
from calotype.vision.guides import ClassifierGuide, ClipGuide, random_class

CLASSES = ("fluent", "noto", "openmoji")


def save_random(folder, resolution=8, seed=0):
    levels = (AdmLevel(channels=16, blocks=1),)
    config = ClassifierConfig(
        resolution=resolution, levels=levels, classes=CLASSES, class_count=3, head_dim=16,
        norm_groups=4,
    )  # fmt: skip
    torch.manual_seed(seed)
    network = Classifier(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    file = ClassifierFile(format=1, name="styles", sha256="", classifier=config)
    save_classifier(folder, ClassifierModel(file, network))
    return str(folder)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    return save_random(tmp_path_factory.mktemp("classifiers") / "styles")


def save_random_clip(folder, noise):
    tower = {"width": 16, "layers": 1, "heads": 2}
    config = ClipConfig(
        image=ImageTowerConfig(resolution=8, patch=4, **tower),
        text=TextTowerConfig(states=16, context=16, **tower),
        embed_dim=8,
        noise=noise,
    )
    file = ClipFile(
        format=1, name="noised", text_encoder="bytes:16", sha256="", clip=config,
        text_fingerprint=ByteTextEncoder(16).fingerprint,
    )  # fmt: skip
    torch.manual_seed(3)
    save_clip(folder, ClipModel(file, Clip(config)))
    return str(folder)


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    return save_random_clip(tmp_path_factory.mktemp("clips") / "noised", NoiseConfig())


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def guided(classifier, wanted="noto", scale="20"):
    return "--classifier", classifier, "--classifier-scale", scale, "--class", wanted


def test_a_classifier_guides_the_base(command, model, classifier, tmp_path):
    words = ("sample", "a fox", "--seed", "3", "--size", "8", "-o", "fox.png")
    assert command(*words, *guided(classifier)) == (0, "fox.png\n", "")
    guide = ClassifierGuide(load_classifier(classifier), "noto")
    cascade = Cascade.load(model, stop_at=8)
    how = {"seeds": [3], "stop_at": 8}
    expected = cascade.sample(["a fox"], **how, pulls=[Pull(guide, 20.0)])
    assert np.abs(pixels("fox.png") - np.asarray(expected.pil()[0]).astype(int)).max() <= 1
    plain = np.asarray(cascade.sample(["a fox"], **how).pil()[0]).astype(int)
    assert np.abs(pixels("fox.png") - plain).mean() > 1
    recipe = read_recipe(tmp_path / "fox.png")
    (note,) = recipe["guides"]
    assert recipe["class"] == "noto" and note == {
        "kind": "classifier", "path": classifier, "name": "styles", "scale": 20.0, "form": "score",
        "sha256": load_classifier(classifier).fingerprint,
    }  # fmt: skip


def test_the_command_of_the_documentation_runs(command, classifier, tmp_path):
    """No caption, and no class: that is drawn, by the seed alone."""
    words = ("sample", "--classifier", classifier, "--classifier-scale", "2", "--size", "8")
    assert command(*words, "-n", "3", "-o", "noto.png")[:2] == (
        0,
        "noto-0.png\nnoto-1.png\nnoto-2.png\n",
    )
    recipes = [read_recipe(tmp_path / f"noto-{seed}.png") for seed in range(3)]
    assert [one["class"] for one in recipes] == [random_class(CLASSES, s) for s in range(3)]
    assert {random_class(CLASSES, seed) for seed in range(9)} == set(CLASSES)
    asked = ("--class", recipes[1]["class"], "--seed", "1", "-o", "asked.png")
    assert command(*words, *asked)[0] == 0
    assert read_recipe(tmp_path / "asked.png") == recipes[1]
    assert np.abs(pixels("asked.png") - pixels("noto-1.png")).max() <= 1


def test_like_samples_it_again_with_its_guide(command, classifier, tmp_path):
    words = ("sample", "fox", "--size", "8", "--sampler", "ddpm", "-o", "a.png")
    assert command(*words, *guided(classifier), "--guidance-form", "mean")[0] == 0
    assert command("sample", "--like", "a.png", "-o", "b.png")[0] == 0
    a, b = read_recipe(tmp_path / "a.png"), read_recipe(tmp_path / "b.png")
    assert a == b and a["guides"][0]["form"] == "mean"
    assert np.abs(pixels("a.png") - pixels("b.png")).max() <= 1
    assert command("sample", "--like", "a.png", "-o", "c.png", "--classifier-scale", "0")[0] == 0
    assert "guides" not in read_recipe(tmp_path / "c.png")
    assert np.abs(pixels("a.png") - pixels("c.png")).mean() > 1
    # Trained on since, or elsewhere: it is another guide.
    other = save_random(tmp_path / "other", seed=1)
    recipe = read_recipe(tmp_path / "a.png")
    recipe["guides"][0]["path"] = other
    write_png(tmp_path / "moved.png", pixels("a.png").astype(np.uint8), recipe)
    code, _, err = command("sample", "--like", "moved.png")
    assert code == 2 and "name what guided it: --classifier RUN" in err
    words = ("sample", "--like", "moved.png", "-o", "d.png", "--classifier", classifier)
    assert command(*words)[0] == 0
    assert np.abs(pixels("a.png") - pixels("d.png")).max() <= 1


def test_lists_are_guided_and_not_sampled_twice(command, classifier, tmp_path):
    Path("list.txt").write_text("a\nb\n")
    words = ("sample", "--from-file", "list.txt", "-o", "p.png", "--size", "8", "-n", "2")
    words += ("--classifier", classifier, "--json")
    code, out, err = command(*words)
    assert (code, err) == (0, "")
    report = json.loads(out)
    chosen = [random_class(CLASSES, seed) for seed in range(2)]
    assert [one["class"] for one in report["pictures"]] == 2 * chosen
    assert chosen[0] != chosen[1] and "class" not in report
    assert report["guides"][0]["name"] == "styles"
    times = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("p-*.png"))]
    assert command(*words)[0] == 0
    assert times == [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("p-*.png"))]
    one = ("--seed", "1", "-o", "one.png", "--size", "8", "--classifier", classifier)
    assert command("sample", "b", *one)[0] == 0
    assert np.abs(pixels("one.png") - pixels("p-3.png")).max() <= 1


def test_a_job_with_guides_goes_to_other_processes(model, classifier, clip):
    guides = GuideRequest(classifier, 2.0, clip_scale=3.0)
    job = settle(Request(model=str(model), clip=clip, guides=guides))
    assert pickle.loads(pickle.dumps(job)).guides == job.guides
    assert [guide.note.scale for guide in job.guides] == [2.0, 3.0]


def test_edits_are_guided_but_for_what_is_kept(command, classifier, tmp_path):
    source = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(source).save("in.png")
    words = ("edit", "in.png", "fox", "--box", "0,0,4,8", "--size", "8", "--crop", "off")
    assert command(*words, "-o", "a.png")[0] == 0
    assert command(*words, "-o", "b.png", *guided(classifier))[0] == 0
    assert np.array_equal(pixels("b.png")[:, 4:], source[:, 4:])
    assert np.abs(pixels("a.png") - pixels("b.png"))[:, :4].mean() > 1
    assert read_recipe(tmp_path / "b.png")["class"] == "noto"
    code, _, err = command("edit", "in.png", "fox", "--vary", "0.2", *guided(classifier))
    assert code != 0 and "which enlarges; expected a base" in err


def test_bad_guides_are_refused_in_one_line(command, classifier, tmp_path):
    large = save_random(tmp_path / "large", resolution=16)
    wrong = {
        guided(
            classifier, "twemoji"
        ): "the classifier styles was not trained with; expected one of",
        guided(large): "16x16 for a base that samples 8x8",
        guided(str(tmp_path / "nothing")): "expected a folder with classifier.json",
        guided(classifier, scale="-1"): "got --classifier-scale -1; expected a number from 0",
        guided(classifier, scale="nan"): "got --classifier-scale nan; expected a number from 0",
        ("--clip-guidance", "inf"): "got --clip-guidance inf; expected a number from 0 (off)",
        (*guided(classifier), "--guidance-form", "mean"): "whose steps have no variance",
        ("--classifier-scale", "2"): "expected --classifier RUN",
        ("--guidance-form", "mean"): "with nothing that guides",
        ("--clip", "somewhere"): "nothing to rank or guide",
        ("--clip-guidance", "3"): "64x64 for a base that samples 8x8",
    }
    for options, message in wrong.items():
        code, out, err = command("sample", "a", "--size", "8", *options)
        assert code != 0 and out == "" and err.count("\n") == 1, options
        assert message in err, (options, err)
    assert not list(tmp_path.glob("*.png"))


def test_a_clip_that_knows_noise_guides_to_the_caption(command, model, clip, tmp_path):
    words = ("sample", "an owl", "--seed", "3", "--size", "8", "--clip-guidance", "2")
    assert command(*words, "--clip", clip, "-o", "owl.png") == (0, "owl.png\n", "")
    guide = ClipGuide(load_clip(clip))
    cascade = Cascade.load(model, stop_at=8)
    expected = cascade.sample(["an owl"], seeds=[3], pulls=[Pull(guide, 2.0)])
    assert np.abs(pixels("owl.png") - np.asarray(expected.pil()[0]).astype(int)).max() <= 1
    assert (
        np.abs(
            pixels("owl.png") - np.asarray(cascade.sample(["an owl"], seeds=[3]).pil()[0])
        ).mean()
        > 1
    )
    (note,) = read_recipe(tmp_path / "owl.png")["guides"]
    assert (note["kind"], note["path"], note["name"]) == ("clip", clip, "noised")
    assert command("sample", "--like", "owl.png", "-o", "again.png")[0] == 0
    assert np.abs(pixels("owl.png") - pixels("again.png")).max() <= 1


def test_guides_go_together_and_with_best_of(command, clip, classifier, tmp_path, monkeypatch):
    """The CLIP that guides does not rank: --clip names one, and the embedded one is the other."""
    asked = []
    monkeypatch.setattr("calotype.generation.cascade.find_clip", lambda name: asked.append(name))
    monkeypatch.setattr("calotype.generation.best_of.load_clip", lambda name: load_clip(clip))
    words = ("sample", "an owl", "--size", "8", "--clip-guidance", "2", "--clip", clip)
    words += ("--classifier", classifier, "--guidance", "2", "--best-of", "2")
    assert command(*words, "-o", "owl.png")[:2] == (0, "owl.png\n")
    assert asked == [None]
    recipe = read_recipe(tmp_path / "owl.png")
    assert [note["kind"] for note in recipe["guides"]] == ["classifier", "clip"]
    assert recipe["class"] == random_class(CLASSES, recipe["seed"])
    assert recipe["best_of"]["count"] == 2


def test_a_clip_that_is_not_to_guide_ranks(command, tmp_path, monkeypatch):
    clean = save_random_clip(tmp_path / "clean", None)
    words = ("sample", "an owl", "--size", "8", "--clip-guidance", "0", "--clip", clean)
    assert command(*words, "--best-of", "2", "-o", "owl.png") == (0, "owl.png\n", "")
    recipe = read_recipe(tmp_path / "owl.png")
    assert recipe["best_of"]["clip_sha256"] == load_clip(clean).fingerprint
    assert "guides" not in recipe


def test_a_clip_beside_an_image_that_none_guided_is_refused(command, clip):
    assert command("sample", "an owl", "--size", "8", "-o", "owl.png")[0] == 0
    code, out, err = command("sample", "--like", "owl.png", "--clip", clip)
    assert code == 2 and out == "" and err.count("\n") == 1
    assert "nothing to rank or guide" in err


def test_a_clip_that_never_saw_noise_is_refused(command, tmp_path):
    clean = save_random_clip(tmp_path / "clean", None)
    code, out, err = command("sample", "an owl", "--clip-guidance", "2", "--clip", clean)
    assert code != 0 and out == "" and err.count("\n") == 1
    assert "which never saw noise" in err and "clip-emoji-noised" in err


def test_a_base_with_classes_is_told_those_that_it_knows(command, classifier, tmp_path):
    base = saved_base(tmp_path / "base", CLASSES[:2])
    words = ("sample", "--model", base)
    cascade, guide = Cascade.load(base), ClassifierGuide(load_classifier(classifier), None)
    for name, told in (("noto", "noto"), ("openmoji", None)):
        assert command(*words, *guided(classifier, name), "-o", "a.png")[0] == 0
        assert read_recipe(tmp_path / "a.png")["class"] == name
        pulls = [Pull(guide.towards(name), 20.0)]
        expected = cascade.sample([""], seeds=[0], classes=[told], pulls=pulls).pil()[0]
        assert np.abs(pixels("a.png") - np.asarray(expected).astype(int)).max() <= 1
        null = cascade.sample([""], seeds=[0], pulls=pulls).pil()[0]
        moved = np.abs(pixels("a.png") - np.asarray(null).astype(int)).max() > 1
        assert moved == (told is not None)


def saved_base(folder, names, *, null_class=True):
    network = AdmConfig(
        levels=(AdmLevel(channels=8, blocks=1),), norm_groups=4, middle="none", classes=len(names)
    )
    sampling = SamplingConfig(steps=2, sampler="ddim", threshold_percentile=None)
    config = StageConfig(
        resolution=8, network=network, sampling=sampling, classes=names, null_class=null_class
    )
    torch.manual_seed(0)
    stage = Stage(config)
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    save_cascade(folder, stages=[stage], text_encoder="none", name="base")
    return str(folder)


@pytest.mark.parametrize("null_class", [True, False])
def test_the_class_that_a_seed_chose_is_told_the_base_too(
    command, classifier, tmp_path, null_class
):
    """Algorithms 1 and 2 of the paper: one class y for the model and the classifier."""
    base = saved_base(tmp_path / "base", CLASSES, null_class=null_class)
    words = ("sample", "--model", base, "--classifier", classifier)
    assert command(*words, "-n", "3", "-o", "some.png")[0] == 0
    cascade, guide = Cascade.load(base), ClassifierGuide(load_classifier(classifier), None)
    names = [random_class(CLASSES, seed) for seed in range(3)]
    pulls = [Pull(guide, 1.0)]
    expected = cascade.sample([""] * 3, seeds=[0, 1, 2], classes=names, pulls=pulls).pil()
    for seed in range(3):
        assert read_recipe(tmp_path / f"some-{seed}.png")["class"] == names[seed]
        own = np.asarray(expected[seed]).astype(int)
        assert np.abs(pixels(f"some-{seed}.png") - own).max() <= 1
    assert command("sample", "--like", "some-1.png", "--model", base, "-o", "again.png")[0] == 0
    assert read_recipe(tmp_path / "again.png") == read_recipe(tmp_path / "some-1.png")


def test_a_base_that_needs_classes_is_not_left_to_seeds_that_choose_others(
    command, classifier, tmp_path
):
    base = saved_base(tmp_path / "base", CLASSES[:2], null_class=False)
    words = ("sample", "--model", base, "--classifier", classifier)
    code, out, err = command(*words)
    assert (code, out) == (2, "") and "such as 'openmoji'" in err and "--class" in err
    assert command(*words, "--class", "noto", "-o", "a.png")[0] == 0


def test_several_classes_of_a_classifier_are_each_image_s_own(
    command, classifier, tmp_path, monkeypatch
):
    """The base has none; the sheet, the report and the names of files say them."""
    read = []
    monkeypatch.setattr(
        "calotype.generation.guides.load_classifier",
        lambda folder: read.append(folder) or load_classifier(folder),
    )
    words = ("sample", "--classifier", classifier, "--classifier-scale", "20", "--size", "8")
    both = (*words, "--class", "noto", "--class", "fluent")
    assert command(*both)[:2] == (0, "noto-0.png\nfluent-0.png\n")
    assert len(read) == 1
    assert command(*words, "--class", "fluent", "-o", "alone.png")[0] == 0
    assert np.abs(pixels("alone.png") - pixels("fluent-0.png")).max() <= 1
    assert np.abs(pixels("noto-0.png") - pixels("fluent-0.png")).max() > 1
    assert read_recipe(tmp_path / "alone.png") == read_recipe(tmp_path / "fluent-0.png")
    report = json.loads(command(*both, "--json")[1])
    assert [one["class"] for one in report["pictures"]] == ["noto", "fluent"]
    assert "class" not in report and "class_name" not in report["guides"][0]
    assert command(*both, "--grid", "-o", "sheet.png")[0] == 0
    sheet = read_recipe(tmp_path / "sheet.png")
    assert [one["class"] for one in sheet["of"]] == ["noto", "fluent"]


@pytest.mark.slow
def test_the_embedded_clip_guides_the_embedded_base(command):
    """By the word of the one that ranks, which was trained apart."""
    caption, scores = "a red bicycle, noto style", {}
    for scale in ("0", "3"):
        words = ("--size", "64", "--seed", "0", "-n", "2", "--guidance", "1", "--steps", "12")
        asked = ("--clip-guidance", scale, "--variety", "1", "--model", "default")
        assert command("sample", caption, *words, *asked, "-o", f"{scale}.png")[0] == 0
        images = (f"{scale}-0.png", f"{scale}-1.png")
        code, out, _ = command("score", *images, "--caption", caption, "--json")
        assert code == 0
        scores[scale] = [one["score"] for one in json.loads(out)["scores"]]
    assert np.mean(scores["3"]) > np.mean(scores["0"]) + 5
