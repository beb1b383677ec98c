import io
import json
import os
import sys
import types

import numpy as np
import pytest
from PIL import Image

import calotype
from calotype.cascade import Stage
from calotype.cascade.png import read_recipe, write_png
from calotype.errors import UsageError
from calotype.generation.request import parse_size
from calotype.storage import files


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_one_image_with_its_recipe(command, model, tmp_path):
    code, out, err = command("sample", "a red fox", "-o", "fox.png", "--seed", "5")
    assert (code, out, err) == (0, "fox.png\n", "")
    expected = calotype.load(model).sample(["a red fox"], seeds=[5]).pil()[0]
    assert np.abs(pixels("fox.png") - np.asarray(expected).astype(int)).max() <= 1
    recipe = read_recipe(tmp_path / "fox.png")
    assert (recipe["caption"], recipe["seed"]) == ("a red fox", 5)
    assert [stage["resolution"] for stage in recipe["stages"]] == [8, 16, 32]
    assert recipe["model"]["name"] == "small" and len(recipe["model"]["weights"]) == 64
    assert recipe["runtime"]["dtype"] == "float32"
    assert os.listdir(tmp_path) == ["fox.png"]


def test_names_seeds_and_several_captions(command, tmp_path):
    assert (
        command("sample", "a", "b", "-n", "2", "--seed", "3", "-o", "p.png", "--size", "8")[0] == 0
    )
    found = [read_recipe(tmp_path / f"p-{i}.png") for i in range(4)]
    sampled = [(recipe["caption"], recipe["seed"]) for recipe in found]
    assert sampled == [("a", 3), ("a", 4), ("b", 3), ("b", 4)]
    assert command("sample", "A Red Fox!", "--size", "8")[1] == "a-red-fox-0.png\n"


def test_like_samples_it_again_and_options_change_it(command, tmp_path):
    settings = ("--steps", "3", "--guidance", "2", "--negative", "blue")
    options = (*settings, "--stage-option", "16:steps=3,aug_level=0.3", "--size", "16")
    assert command("sample", "fox", "--seed", "9", "-o", "a.png", *options)[0] == 0
    assert command("sample", "--like", "a.png", "-o", "b.png")[0] == 0
    a, b = read_recipe(tmp_path / "a.png"), read_recipe(tmp_path / "b.png")
    assert a == b and np.abs(pixels("a.png") - pixels("b.png")).max() <= 1
    assert a["stages"][0]["sampling"]["steps"] == 3
    assert a["stages"][1]["sampling"]["aug_level"] == 0.3
    assert a["negative_caption"] == "blue"
    assert command("sample", "--like", "a.png", "-o", "c.png", "--seed", "10")[0] == 0
    c = read_recipe(tmp_path / "c.png")
    assert c["seed"] == 10 and c["stages"] == a["stages"]
    assert np.abs(pixels("a.png") - pixels("c.png")).mean() > 1


def test_like_refuses_other_weights_and_other_images(command, model, tmp_path):
    command("sample", "fox", "-o", "a.png", "--size", "8")
    recipe = read_recipe(tmp_path / "a.png")
    black = np.zeros((8, 8, 3), np.uint8)
    for changes, code, message in [
        ({"model": {"name": "other", "weights": "0" * 64}}, 2, "the weights 000000000000, but"),
        ({"kind": "upscale"}, 2, "kind"),
        ({"stages": []}, 1, "damaged"),
        ({"stages": [{"resolution": 8}]}, 1, "damaged"),
        ({"seed": "x"}, 1, "damaged"),
        ({"runtime": {"threads": "x"}}, 1, "damaged"),
    ]:
        write_png(tmp_path / "x.png", black, {**recipe, **changes})
        got, _, err = command("sample", "--like", "x.png", "-o", "y.png")
        assert (got, err.count("\n")) == (code, 1) and message in err, (changes, err)
    recipe["stages"][0]["sampling"]["stepps"] = 3
    write_png(tmp_path / "x.png", black, recipe)
    got, _, err = command("sample", "--like", "x.png", "-o", "y.png")
    assert got == 2 and "did you mean 'steps'" in err
    assert not (tmp_path / "y.png").exists()


def test_grid_is_one_sheet(command, tmp_path):
    assert command("sample", "a", "b", "c", "--grid", "-o", "g.png", "--size", "8")[1] == "g.png\n"
    assert pixels("g.png").shape == (16, 16, 3)
    assert (pixels("g.png")[8:, 8:] == 255).all()
    recipe = read_recipe(tmp_path / "g.png")
    assert [one["caption"] for one in recipe["of"]] == ["a", "b", "c"]
    report = json.loads(command("sample", "a", "--grid", "-n", "2", "--size", "8", "--json")[1])
    assert (report["kind"], recipe["kind"]) == ("grid", "grid")


def test_json_is_all_that_is_printed(command):
    code, out, err = command("sample", "a\ud800\0", "-n", "2", "--json", "-o", "a.png")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert report["files"] == ["a-0.png", "a-1.png"]
    assert [p["seed"] for p in report["pictures"]] == [0, 1]
    assert report["pictures"][0]["caption"] == "a\ud800\0"
    assert [stage["resolution"] for stage in report["stages"]] == [8, 16, 32]
    assert report["seconds"] > 0


@pytest.mark.parametrize(
    ("size", "shape"),
    [("8", (8, 8)), ("16", (16, 16)), ("32x64", (64, 32)), ("24x8", (8, 24)), ("31x8", None)],
)
def test_sizes(command, size, shape):
    code, _, err = command("sample", "a", "-o", "a.png", "--size", size)
    if size == "31x8":
        assert code == 2 and "multiples" in err
        return
    assert code == 0, err
    assert pixels("a.png").shape == (*shape, 3)


def test_captions_from_a_file_and_from_the_input(command, tmp_path, monkeypatch):
    (tmp_path / "c.txt").write_bytes("\ufeffa fox\r\n\n日本\n".encode() + b"bad \xff\n")
    assert command("sample", "--from-file", "c.txt", "-o", "a.png", "--size", "8")[0] == 0
    captions = [read_recipe(tmp_path / f"a-{i}.png")["caption"] for i in range(3)]
    assert captions == ["a fox", "日本", "bad \ufffd"]
    source = types.SimpleNamespace(buffer=io.BytesIO(b"x" * 10_000_000))
    monkeypatch.setattr(sys, "stdin", source)
    assert command("sample", "--from-file", "-", "-o", "b.png", "--size", "8")[0] == 0
    assert len(read_recipe(tmp_path / "b.png")["caption"]) == 10_000_000


def test_the_empty_prompt_is_legal(command):
    assert command("sample", "", "-o", "a.png", "--size", "8")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample"], "no caption"),
        (["sample", "a", "-o", "no/a.png"], "make it first"),
        (["sample", "a", "-o", "a.jpg"], ".png"),
        (["sample", "a", "-o", "."], ".png"),
        (["sample", "a", "-n", "0"], "-n 0"),
        (["sample", "a", "--seed", "-1"], "2^63-1"),
        (["sample", "a", "--seed", str(2**63)], "2^63-1"),
        (["sample", "a", "--seed", str(2**63 - 1), "-n", "2"], "2^63-1"),
        (["sample", "a", "--steps", "0"], "steps=0"),
        (["sample", "a", "--steps", "5000"], "4096"),
        (["sample", "a", "--guidance", "nan"], "guidance_weight=nan"),
        (["sample", "a", "--size", "64"], "[8, 16, 32]"),
        (["sample", "a", "--size", "huge"], "WIDTHxHEIGHT"),
        (["sample", "a", "--stage-option", "64:steps=2"], "64:steps=2"),
        (["sample", "a", "--stage-option", "16:stepz=2"], "did you mean 'steps'"),
        (["sample", "a", "--stage-option", "16:steps"], "key=value"),
        (["sample", "a", "--stage-option", "8:aug_level=0.2"], "the 8 stage, which enlarges"),
        (["sample", "a", "--size", "30x40"], "got size 30x40 (width x height)"),
        (["sample", "a", "--from-file", "no.txt"], "cannot read"),
        (["sample", "--from-file", "no.txt"], "cannot read no.txt"),
        (["sample", "--like", "no.png"], "cannot read no.png"),
        (["sample", "a", "--model", "nowhere"], "expected 'default'"),
        (["sample", "a", "--device", "gpu9"], "gpu9"),
        (["sample", "a", "--grid", "-n", "300"], "at most 256"),
    ],
)
def test_wrong_input_samples_nothing(command, monkeypatch, tmp_path, arguments, message):
    if arguments == ["sample", "a", "--from-file", "no.txt"]:
        message = "one of them"
    monkeypatch.setattr(Stage, "steps", lambda *a, **k: pytest.fail("computed"))
    code, out, err = command(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert list(tmp_path.glob("*.png")) == []


def test_a_full_disk_leaves_no_file(command, monkeypatch, tmp_path):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_flush", full)
    code, out, err = command("sample", "a", "-o", "a.png", "--size", "8")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "No space left" in err and os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_an_unwritable_folder_is_told_at_once(command, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    code, _, err = command("sample", "a", "-o", "closed/a.png")
    assert code == 1 and "cannot be written" in err


def test_sizes_are_parsed():
    assert parse_size("256") == 256
    assert parse_size("96x64") == (64, 96)
    for text in ("", "x", "6x", "-8", "1e3", "9" * 9):
        with pytest.raises(UsageError):
            parse_size(text)
