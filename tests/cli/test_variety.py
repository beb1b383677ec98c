"""`--variety`: of a base that samples from its draft, and refused for others."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.cascade import Stage, find, save_cascade
from calotype.cascade.png import read_recipe, write_png
from calotype.config.network import DraftConfig, LevelConfig, UNetConfig
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.config.typed_json import to_dict


def random_cascade(folder, seed):
    """A cascade of one base of 8 pixels that samples from its draft, with random weights."""
    network = UNetConfig(
        levels=(LevelConfig(channels=8, blocks=1), LevelConfig(channels=8, blocks=1)),
        text_dim=16,
        head_dim=8,
        text_pooling="whitened_mean",
        draft=DraftConfig(width=8, rank=4, resolution=8),
    )
    sampling = SamplingConfig(
        steps=3, sampler="dpmpp_2m", grid="karras", start="draft", sigma_max=0.7
    )
    torch.manual_seed(seed)
    stage = Stage(StageConfig(resolution=8, network=network, sampling=sampling))
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_cascade(folder, stages=[stage], text_encoder="bytes:16", name=folder.name)
    return folder


@pytest.fixture(scope="module")
def drafted(tmp_path_factory):
    return random_cascade(tmp_path_factory.mktemp("models") / "drafted", 0)


@pytest.fixture
def default(tmp_path, monkeypatch):
    """Replaces the embedded cascade by one of random weights of this seed."""
    monkeypatch.setattr(find, "__file__", str(tmp_path / "package" / "cascade" / "find.py"))
    folder = tmp_path / "package" / "assets" / "default"

    def install(seed):
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        return random_cascade(folder, seed)

    return install


def pixels(name):
    with Image.open(name) as image:
        return np.asarray(image).astype(int)


def sampling(path):
    return read_recipe(path)["stages"][0]["sampling"]


def test_variety_is_of_the_base_and_stays_in_the_recipe(command, drafted, tmp_path):
    def run(*words):
        code, _, err = command("sample", *words, "--model", str(drafted), "--dtype", "float32")
        assert (code, err) == (0, "")

    run("fox", "-o", "a.png", "--variety", "0.75")
    assert sampling(tmp_path / "a.png")["variety"] == 0.75
    run("--like", "a.png", "-o", "b.png")
    assert read_recipe(tmp_path / "a.png") == read_recipe(tmp_path / "b.png")
    assert np.abs(pixels("a.png") - pixels("b.png")).max() <= 1
    run("--like", "a.png", "--variety", "0", "-o", "c.png")
    run("fox", "-o", "d.png")
    assert sampling(tmp_path / "d.png")["variety"] == 0
    assert np.abs(pixels("c.png") - pixels("d.png")).max() <= 1
    assert np.abs(pixels("a.png") - pixels("d.png")).mean() > 1


def test_variety_changes_the_image(command, drafted):
    """How much seeds differ is checked with exact denoisers, in tests/cascade."""
    for variety in ("0", "0.5", "1"):
        options = ("--variety", variety, "-o", f"{variety}.png", "--model", str(drafted))
        assert command("sample", "fox", *options)[0] == 0
    images = [pixels(f"{variety}.png") for variety in ("0", "0.5", "1")]
    assert (images[0] != images[1]).any() and (images[1] != images[2]).any()


@pytest.mark.parametrize(
    ("name", "own"), [("evaluate", ()), ("sweep", ("--axis", "8:guidance_weight=1,2"))]
)
def test_variety_of_evaluations_stays_in_their_manifests(
    command, eyes, drafted, tmp_path, name, own
):
    (tmp_path / "suite.txt").write_text("a red fox\ntwo dogs\n")

    def run(*words):
        given = (name, str(drafted), "--suite", "suite.txt", "--clip", "none", "-o", "e", *own)
        return command(*given, "--threads", "1", "--dtype", "float32", *words)

    code, _, err = run("--variety", "0.75")
    assert code == 0, err
    manifests = list((tmp_path / "e").rglob("manifest.json"))
    assert len(manifests) == (2 if own else 1)
    for path in manifests:
        (stage,) = json.loads(path.read_text())["recipe"]["stages"]
        assert stage["sampling"]["variety"] == 0.75
    assert run("--variety", "0.75")[0] == 0
    for other in ((), ("--variety", "0.5")):
        code, _, err = run(*other)
        assert code == 2 and "choose another folder" in err, err


@pytest.mark.parametrize("variety", ["0", "0.5"])
def test_a_base_that_starts_from_noise_has_no_variety(command, tmp_path, variety):
    code, out, err = command("sample", "fox", "--variety", variety, "-o", "a.png")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"got --variety {variety} for a base that starts from noise; expected a model" in err
    assert list(tmp_path.glob("*.png")) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--variety", "1.5"], "got variety=1.5; expected a number from 0.0 to 1.0"),
        (["--variety", "nan"], "got variety=nan"),
        (["--stage-option", "8:grid=schedule"], 'got start="draft" with grid="schedule"'),
        (["--variety", "0.5", "--stage-option", "8:start=noise"], 'variety=0.5 with start="noise"'),
    ],
)
def test_wrong_settings_are_one_line(command, drafted, words, message):
    code, out, err = command("sample", "fox", *words, "-o", "a.png", "--model", str(drafted))
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err, err


def test_a_start_that_the_model_lacks_is_one_line(command):
    option = "8:start=draft,grid=karras,sigma_max=1"
    code, out, err = command("sample", "fox", "--stage-option", option, "-o", "a.png")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert 'got start="draft" for the 8 stage, whose network has no draft; expected' in err


def test_older_recipes_start_from_noise(command, tmp_path):
    """What their settings did not say is what was done then."""
    assert command("sample", "fox", "-o", "a.png", "--size", "8")[0] == 0
    recipe = read_recipe(tmp_path / "a.png")
    for stage in recipe["stages"]:
        del stage["sampling"]["start"], stage["sampling"]["variety"]
    write_png(tmp_path / "old.png", pixels("a.png").astype(np.uint8), recipe)
    code, _, err = command("sample", "--like", "old.png", "-o", "b.png")
    assert (code, err) == (0, "")
    assert np.array_equal(pixels("a.png"), pixels("b.png"))


def test_like_of_an_older_default_says_that_the_weights_are_others(command, default, tmp_path):
    """Its weights are gone with the older package: its settings are used, as they are."""
    default(1)
    options = ("--model", "default", "--seed", "3")
    noise = "8:start=noise,sigma_max=80,steps=5"
    assert command("sample", "fox", *options, "--stage-option", noise, "-o", "old.png")[0] == 0
    code, _, err = command("sample", "--like", "old.png", "-o", "a.png", "--model", "default")
    assert (code, err) == (0, "")

    default(2)
    code, out, err = command("sample", "--like", "old.png", "-o", "b.png", "--model", "default")
    assert (code, out, err.count("\n")) == (0, "b.png\n", 1)
    assert "the image was made by other weights of 'default'" in err
    assert "cannot be made again exactly; sampling with the settings of its recipe" in err
    old, new = read_recipe(tmp_path / "old.png"), read_recipe(tmp_path / "b.png")
    assert (old["stages"], old["seed"]) == (new["stages"], new["seed"])
    assert old["model"]["weights"] != new["model"]["weights"]
    assert new["stages"][0]["sampling"] == to_dict(
        SamplingConfig(steps=5, sampler="dpmpp_2m", grid="karras")
    )
    assert command("sample", "fox", *options, "--stage-option", noise, "-o", "c.png")[0] == 0
    assert np.array_equal(pixels("b.png"), pixels("c.png"))


def test_like_of_another_model_asks_for_it(command, default, drafted):
    default(1)
    command("sample", "fox", "-o", "a.png", "--model", str(drafted))
    code, out, err = command("sample", "--like", "a.png", "-o", "b.png", "--model", "default")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "sampled by 'drafted' with the weights" in err and "give --model what sampled it" in err
