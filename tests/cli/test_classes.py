"""`calotype sample` and `edit` with classes, and without captions and classes at all."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.cascade import Stage, save_cascade
from calotype.cascade.png import read_recipe
from calotype.config.adm import AdmConfig, AdmLevel
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.evaluation.samples import open_samples

NAMES = ("fluent", "noto")


def saved(folder, *, names=NAMES, null_class=True, lowres=None):
    torch.manual_seed(0)
    levels = (AdmLevel(channels=8, blocks=1),)
    network = AdmConfig(
        levels=levels, norm_groups=4, middle="none", classes=len(names), lowres=lowres is not None
    )
    sampling = SamplingConfig(steps=2, sampler="ddim", threshold_percentile=None)
    config = StageConfig(
        resolution=8 if lowres is None else 2 * lowres,
        lowres_resolution=lowres,
        network=network,
        sampling=sampling,
        classes=names,
        null_class=null_class,
    )
    stage = Stage(config)
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    save_cascade(folder, stages=[stage], text_encoder="none", name="styles")
    return str(folder)


@pytest.fixture(scope="module")
def styles(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("classed") / "styles")


def test_a_class_takes_the_place_of_a_caption(command, styles, tmp_path):
    sample = ("sample", "--model", styles)
    assert command(*sample, "--class", "noto", "-o", "noto.png")[:2] == (0, "noto.png\n")
    recipe = read_recipe(tmp_path / "noto.png")
    assert (recipe["class"], recipe["caption"], recipe["seed"]) == ("noto", "", 0)
    assert command(*sample, "--class", "noto")[1] == "noto-0.png\n"
    assert command(*sample, "--like", "noto.png", "-o", "again.png")[0] == 0
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "noto.png").read_bytes()
    assert command(*sample, "--like", "noto.png", "--class", "fluent", "-o", "b.png")[0] == 0
    assert read_recipe(tmp_path / "b.png")["class"] == "fluent"
    assert (tmp_path / "b.png").read_bytes() != (tmp_path / "noto.png").read_bytes()
    assert command(*sample, "-o", "null.png", "--guidance", "1")[0] == 0  # the null class
    assert "class" not in read_recipe(tmp_path / "null.png")


def test_several_classes_are_images_of_each(command, styles, tmp_path):
    words = ("sample", "--model", styles, "--class", "noto", "--class", "fluent", "-n", "2")
    code, out, _ = command(*words, "-o", "a.png", "--json")
    assert code == 0
    images = json.loads(out)["pictures"]
    assert [(one["class"], one["seed"]) for one in images] == [
        ("noto", 0), ("noto", 1), ("fluent", 0), ("fluent", 1),
    ]  # fmt: skip
    alone = ("sample", "--model", styles, "--class", "fluent", "-n", "2", "-o", "b.png")
    assert command(*alone)[0] == 0
    assert (tmp_path / "b-1.png").read_bytes() == (tmp_path / "a-3.png").read_bytes()
    assert command(*words, "--grid", "-o", "sheet.png")[:2] == (0, "sheet.png\n")
    assert [one["class"] for one in read_recipe(tmp_path / "sheet.png")["of"]] == [
        "noto", "noto", "fluent", "fluent",
    ]  # fmt: skip


def test_a_model_without_text_and_classes_needs_neither(command, tmp_path):
    plain = saved(tmp_path / "plain", names=())
    assert command("sample", "--model", plain, "-n", "2", "-o", "x.png")[1] == "x-0.png\nx-1.png\n"
    code, _, err = command("sample", "an owl", "--model", plain, "-o", "y.png")
    assert code == 2 and "takes no captions; expected none" in err
    code, _, err = command("sample", "--guidance", "3", "--model", plain, "-o", "y.png")
    assert code == 2 and "and has no classes: it would do nothing; expected no --guidance" in err
    code, _, err = command("sample", "--class", "noto", "--model", plain, "-o", "y.png")
    assert code == 2 and "got the class 'noto' for the model 'styles', which has none" in err


def test_what_does_not_fit_is_said_in_one_line(command, styles, tmp_path):
    told = saved(tmp_path / "told", null_class=False)
    for words, message in (
        (
            ("--class", "nota", "--model", styles),
            "one of its 2: 'fluent', 'noto'; did you",
        ),
        (("an owl", "--class", "noto", "--model", styles), "takes no captions"),
        (("--guidance", "2", "--model", styles), "own is named: it would do nothing"),
        (("--model", told), "got no class for the 8 stage"),
        (("--class", "noto", "--guidance", "2", "--model", told), "null class was not trained"),
        (("--class", "noto"), "got the class 'noto' for the model 'small', which has none"),
        (("--class", "a", "--class", "b", "--from-file", "list.txt"), "expected one"),
    ):
        code, out, err = command("sample", *words)
        assert (code, out) == (2, "") and message in err and err.count("\n") == 1, err
    assert "got no caption" in command("sample")[2]


def test_edits_are_told_a_class(command, styles, tmp_path):
    Image.new("RGB", (8, 8), (40, 80, 120)).save(tmp_path / "a.png")
    words = ("edit", "a.png", "", "--strength", "0.8", "--model", styles)
    assert command(*words, "--class", "noto", "-o", "b.png")[0] == 0
    assert command(*words, "-o", "c.png")[0] == 0
    assert read_recipe(tmp_path / "b.png")["class"] == "noto"
    assert (tmp_path / "b.png").read_bytes() != (tmp_path / "c.png").read_bytes()


def test_enlarging_is_told_a_class(command, styles, tmp_path):
    larger = saved(tmp_path / "larger", lowres=8)
    Image.new("RGB", (8, 8), (40, 80, 120)).save(tmp_path / "a.png")
    words = ("upscale", "a.png", "--model", larger)
    made = {}
    for name in (None, *NAMES):
        told = () if name is None else ("--class", name)
        assert command(*words, *told, "-o", f"{name}.png")[0] == 0
        assert read_recipe(tmp_path / f"{name}.png").get("class") == name
        made[name] = (tmp_path / f"{name}.png").read_bytes()
    assert len(set(made.values())) == 3
    code, out, err = command(*words, "--class", "nota", "-o", "x.png")
    assert (code, out) == (2, "") and "one of its 2: 'fluent', 'noto'; did you" in err
    code, _, err = command("upscale", "a.png", "--class", "noto", "-o", "x.png")
    assert code == 2 and "got the class 'noto' for the model 'small', which has none" in err


def test_enlarging_takes_the_class_that_an_image_says_where_it_is_known(command, styles, tmp_path):
    assert command("sample", "--model", styles, "--class", "noto", "-o", "noto.png")[0] == 0
    larger, other = saved(tmp_path / "larger", lowres=8), saved(tmp_path / "x", names=(), lowres=8)
    for model, name in ((larger, "noto"), (other, None)):
        assert command("upscale", "noto.png", "--model", model, "-o", "b.png")[0] == 0
        assert read_recipe(tmp_path / "b.png").get("class") == name
    assert command("upscale", "noto.png", "--model", larger, "--class", "fluent")[0] == 0
    assert read_recipe(tmp_path / "noto-upscaled.png")["class"] == "fluent"
    assert command("sample", "fox", "-o", "fox.png", "--size", "8")[0] == 0
    assert command("upscale", "fox.png", "--model", larger)[0] == 0  # which takes no captions
    assert read_recipe(tmp_path / "fox-upscaled.png")["caption"] == ""


def test_a_suite_is_sampled_of_one_class(command, eyes, styles, tmp_path):
    """A model without text is told none of the prompts: they say how many images there are."""
    (tmp_path / "suite.txt").write_text("one\ntwo\n")
    words = (styles, "--suite", "suite.txt", "--clip", "none", "--threads", "1")
    told = ("--class", "noto", "--seed", "3")
    code, _, err = command("evaluate", *words, *told, "-n", "2", "-o", "e")
    assert code == 0 and "4 images of 2 prompts, which a model without text is not told" in err
    samples = open_samples(tmp_path / "e" / "samples")
    assert len(samples) == 4 and samples.manifest.recipe["class"] == "noto"
    seed = str(samples.samples[3].seed)
    sample = ("sample", "--model", styles, "--threads", "1", "--class", "noto", "--seed", seed)
    assert command(*sample, "-o", "one.png")[0] == 0
    with Image.open("one.png") as one, Image.open(io.BytesIO(samples.encoded(3))) as other:
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1
    axis = ("--axis", "8:sampler=ddim,ddpm", "-o", "s")
    assert command("sweep", *words, *told, *axis)[0] == 0
    cells = [open_samples(path / "samples") for path in (tmp_path / "s" / "cells").glob("8-*")]
    assert [one.manifest.recipe["class"] for one in cells] == ["noto"] * 2


def test_a_suite_without_a_class_is_refused_by_a_model_without_a_null_class(command, tmp_path):
    model = saved(tmp_path / "told", null_class=False)
    (tmp_path / "suite.txt").write_text("one\n")
    code, _, err = command("evaluate", model, "--suite", "suite.txt", "--clip", "none", "-o", "e")
    assert code == 2 and "got no class for the 8 stage" in err and not (tmp_path / "e").exists()


def test_info_shows_the_names(command, styles):
    assert json.loads(command("info", styles, "--json")[1])["classes"] == list(NAMES)
    assert "classes: ['fluent', 'noto']" in command("info", styles)[1]
