import json

import numpy as np
import pytest
from PIL import Image

from calotype.cascade.png import read_recipe


@pytest.mark.parametrize(
    ("name", "mode"), [("a.png", "RGBA"), ("a.jpg", "CMYK"), ("a.gif", "P"), ("a.tif", "I;16")]
)
def test_images_of_any_kind(command, tmp_path, name, mode):
    Image.new(mode, (9, 7)).save(tmp_path / name)
    code, out, err = command("upscale", name, "a fox", "-o", "big.png", "--seed", "4")
    assert (code, out) == (0, "big.png\n"), err
    with Image.open("big.png") as image:
        assert image.size == (36, 28)
    recipe = read_recipe(tmp_path / "big.png")
    assert (recipe["kind"], recipe["caption"], recipe["source"]) == ("upscale", "a fox", name)
    code, _, err = command("sample", "--like", "big.png", "-o", "x.png")
    assert code == 2 and "upscale" in err


def test_enlarging_a_base_image_repeats_the_cascade(command, tmp_path):
    command("sample", "fox", "-o", "small.png", "--size", "8")
    command("sample", "fox", "-o", "whole.png")
    code, out, _ = command("upscale", "small.png", "-o", "big.png", "--json")
    assert code == 0
    assert json.loads(out)["caption"] == "fox"  # from the image's recipe
    images = []
    for name in ("whole.png", "big.png"):
        with Image.open(name) as image:
            images.append(np.asarray(image).astype(float))
    # The small image was rounded to 8 bits in between.
    assert np.abs(images[0] - images[1]).mean() < 6


def test_transparent_is_white_and_size_stops(command, tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("RGB", (8, 8), "white").save(tmp_path / "white.png")
    for name in ("clear", "white"):
        assert command("upscale", f"{name}.png", "-o", f"{name}-2.png", "--size", "16")[0] == 0
    with Image.open("clear-2.png") as a, Image.open("white-2.png") as b:
        assert a.size == (16, 16) and np.array_equal(np.asarray(a), np.asarray(b))


def test_what_is_no_image(command, tmp_path):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    Image.new("1", (10_000, 9_000)).save(tmp_path / "large.png")  # Pillow would warn
    Image.new("L", (8, 8)).save(tmp_path / "good.png")
    for arguments, message in [
        (["text.png"], "no image"),
        (["cut.png"], "cut.png"),
        (["none.png"], "cannot read none.png"),
        (["."], "cannot read ."),
        (["large.png"], "shrink it"),
        (["good.png", "-o", "no/a.png"], "make it first"),
        (["good.png", "--size", "8"], "got --size 8 for an image of 8x8; expected one of [16,"),
        (["good.png", "--seed", "-2"], "2^63-1"),
    ]:
        if arguments == ["."]:
            arguments = [".", "-o", "a.png"]
        code, out, err = command("upscale", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert message in err


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_grey_of_16_bits_is_scaled_not_clipped(command, tmp_path, name):
    grey = np.linspace(0, 65535, 64).reshape(8, 8)
    Image.fromarray(grey.astype(np.uint16)).save(tmp_path / name)
    Image.fromarray(np.rint(grey / 257).astype(np.uint8)).save(tmp_path / "grey.png")
    for source in (name, "grey.png"):
        assert command("upscale", source, "-o", f"{source}-2.png", "--size", "16")[0] == 0
    with Image.open(f"{name}-2.png") as a, Image.open("grey.png-2.png") as b:
        assert np.array_equal(np.asarray(a), np.asarray(b))
