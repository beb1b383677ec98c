"""Finding 5: no image is written over another one."""

import json
import os

import numpy as np
import pytest

from calotype.cascade.png import read_recipe, write_png
from calotype.cascade.recipe import image_id
from calotype.generation.outputs import Output, default_output, slug

SMALL = ("--size", "8", "--steps", "1")
BLACK = np.zeros((8, 8, 3), np.uint8)


def recipe(caption="a fox", seed=0, **other):
    stage = {"resolution": 8, "height": 8, "width": 8, "dtype": "float32", "sampling": {"steps": 1}}
    model = {"name": "small", "weights": "0" * 64}
    return {
        **{"kind": "sample", "caption": caption, "negative_caption": None, "seed": seed},
        **{"model": model, "stages": [stage], **other},
    }


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A Red Fox!", "a-red-fox"),
        ("一只猫", "一只猫"),
        ("हिन्दी में", "हिन्दी-में"),
        ("e\u0301t\u00e9", "été"),
        ("", "image"),
        ("..", "image"),
        ("../../etc/passwd", "etc-passwd"),
        ("🦊\ud800\0", "image"),
        ("a" * 500, "a" * 48),
        ("猫" * 500, "猫" * 32),
    ],
)
def test_slugs_keep_letters_of_any_script(caption, expected):
    assert slug(caption) == expected


def test_default_names_differ_for_every_caption_and_setting(command, tmp_path):
    calls = [(c,) for c in ("一只猫", "一只狗", "", "..", "a fox", "A fox!")]
    calls += [("a fox", *change) for change in (["--seed", "1"], ["--negative", "x"])]
    calls += [("a fox", "--sampler", "ddim"), ("a fox", "--stage-option", "8:steps=2")]
    names = []
    for caption, *options in calls:
        code, out, err = command("sample", caption, *SMALL, *options)
        assert code == 0, err
        names.append(out.strip())
    assert len(set(names)) == len(calls) == len(list(tmp_path.glob("*.png")))
    assert names[4] == "a-fox-0.png" and names[6] == "a-fox-1.png"
    for name, (caption, *_) in zip(names, calls, strict=True):
        assert read_recipe(tmp_path / name)["caption"] == caption
    assert command("sample", "a fox", *SMALL)[1] == "a-fox-0.png\n"  # the same image


def test_several_images_are_called_by_their_own_captions(command, tmp_path):
    out = command("sample", "a", "b", "-n", "2", *SMALL)[1]
    assert out.split() == ["a-0.png", "a-1.png", "b-0.png", "b-1.png"]
    sheet = command("sample", "a", "b", "--grid", *SMALL)[1].strip()
    assert sheet.startswith("a-0-") and read_recipe(tmp_path / sheet)["kind"] == "grid"
    assert read_recipe(tmp_path / "a-0.png")["kind"] == "sample"


def test_numbered_names_of_others_are_refused_and_nothing_is_computed(
    command, tmp_path, monkeypatch
):
    (tmp_path / "p-1.png").write_bytes(b"mine")
    monkeypatch.setattr(
        "calotype.generation.cascade.CascadeGenerator.generate", lambda *a: pytest.fail("computed")
    )
    code, out, err = command("sample", "a", "b", "-o", "p.png", *SMALL)
    assert (code, out, err.count("\n")) == (2, "", 1) and "p-1.png is there already" in err
    assert os.listdir(tmp_path) == ["p-1.png"]
    assert (tmp_path / "p-1.png").read_bytes() == b"mine"


def test_a_name_given_for_one_image_is_replaced(command, tmp_path):
    (tmp_path / "q.png").write_bytes(b"mine")
    assert command("sample", "a", "-o", "q.png", *SMALL)[0] == 0
    assert command("sample", "a", "b", "--grid", "-o", "q.png", *SMALL)[0] == 0
    assert read_recipe(tmp_path / "q.png")["kind"] == "grid"


def test_captions_of_others_are_not_written_over(command, tmp_path):
    (tmp_path / "a-0.txt").write_text("my notes")
    out = command("sample", "a", "--write-captions", *SMALL)[1].strip()
    assert out.startswith("a-0-") and (tmp_path / "a-0.txt").read_text() == "my notes"
    assert (tmp_path / out).with_suffix(".txt").read_text() == "a"


def test_upscaled_images_have_names_of_their_own(command, tmp_path):
    for seed in ("0", "1"):
        command("sample", "a", "--seed", seed, "-o", "x.png", *SMALL)
        command("upscale", "x.png", "--size", "16")
    command("upscale", "x.png", "--size", "16")
    assert len(list(tmp_path.glob("x-upscaled*.png"))) == 2


def test_what_was_taken_meanwhile_is_another_name(tmp_path, monkeypatch):
    """Two processes that begin together: both found the name free."""
    monkeypatch.chdir(tmp_path)
    mine, other = recipe(), recipe(stages=[])
    output = default_output(mine)
    output.check(mine)
    write = write_png

    def slow(path, pixels, recipe, *, replace):
        if not (tmp_path / "a-fox-0.png").exists():
            write(tmp_path / "a-fox-0.png", BLACK, other)
        write(path, pixels, recipe, replace=replace)

    monkeypatch.setattr("calotype.cascade.png.write_png", slow)
    name = output.write(BLACK, mine)
    assert name.name == f"a-fox-0-{image_id(mine)[:8]}.png"
    assert read_recipe(tmp_path / "a-fox-0.png") == other and read_recipe(name) == mine


def test_ids_are_of_what_decides_an_image():
    first = recipe()
    assert image_id(json.loads(json.dumps(first))) == image_id(first)
    same = recipe(runtime={"threads": 3}, version="9", torch="9")
    same["stages"][0]["dtype"] = "bfloat16"
    assert image_id(same) == image_id(first)
    for other in (recipe("b"), recipe(seed=1), recipe(loras=[{"weight": 1}]), recipe(stages=[])):
        assert image_id(other) != image_id(first)
    for odd in ({}, {"stages": 3}, {"stages": [1, None]}, {"caption": "\ud800"}):
        assert len(image_id(odd)) == 64


def test_a_link_to_nowhere_is_no_free_name(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "elsewhere.png")
    output = Output((tmp_path / "a.png", tmp_path / "b.png"))
    assert output.write(BLACK, recipe()) == tmp_path / "b.png"
    assert (tmp_path / "a.png").is_symlink() and not (tmp_path / "elsewhere.png").exists()


def test_ids_are_those_of_before():
    """Lists look for their images by them: one more thing that decides must not change the rest."""
    fox = {"kind": "sample", "caption": "a fox", "seed": 1}
    assert image_id(fox) == ("8503f7ee7ac975ecc614bfddac094d79e83fe36139794fb6aae1244239ae33df")
    assert image_id({**fox, "edit": {}}) != image_id(fox)
