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


@pytest.mark.parametrize("size", [(32, 32), (20, 32)])
def test_tiles_go_beyond_the_last_stage(command, tmp_path, size):
    Image.effect_mandelbrot(size, (-2, -1, 1, 1), 50).save(tmp_path / "a.png")
    code, out, err = command("upscale", "a.png", "--tiled", "--size", "128", "-o", "big.png")
    assert (code, out) == (0, "big.png\n"), err
    with Image.open("big.png") as image:
        assert image.size == (4 * size[0], 4 * size[1])
    stages = read_recipe(tmp_path / "big.png")["stages"]
    assert [stage["resolution"] for stage in stages] == [64, 128]
    assert [stage["tiled"] for stage in stages] == [{"side": 40, "overlap": 8}] * 2
    settings = ("--stage-option", "128:steps=3")
    assert command("upscale", "a.png", "--tiled", "--size", "128", *settings)[0] == 0
    assert read_recipe(tmp_path / "a-upscaled.png")["stages"][1]["sampling"]["steps"] == 3


def test_one_tile_is_the_image_and_the_recipe_of_before(command, tmp_path):
    Image.effect_mandelbrot((8, 8), (-2, -1, 1, 1), 50).save(tmp_path / "a.png")
    for name, more in (("plain.png", ()), ("tiled.png", ("--tiled",))):
        assert command("upscale", "a.png", "-o", name, *more)[0] == 0
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "tiled.png").read_bytes()
    assert "tiled" not in str(read_recipe(tmp_path / "tiled.png")["stages"])


def test_sizes_that_tiles_do_not_reach(command, tmp_path):
    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    Image.new("L", (1400, 1400)).save(tmp_path / "b.png")
    for arguments, message in [
        (["a.png", "--size", "64"], "got --size 64; expected one of [8, 16, 32]"),
        (["a.png", "--tiled", "--size", "100"], "got --size 100; expected one of [8, 16, 32, 64,"),
        (["a.png", "--tiled"], "got --size 32 for an image of 32x32; expected one of [64, 128,"),
        (["b.png", "--tiled", "--size", "4096"], "expected at most 4096x4096: take a smaller"),
    ]:
        code, out, err = command("upscale", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert message in err


def test_tiles_are_counted_and_ctrl_c_leaves_nothing(command, tmp_path, monkeypatch):
    from calotype import progress
    from calotype.cascade.stage import Stage

    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    Image.new("L", (32, 32)).save(tmp_path / "a.png")
    words = ("upscale", "a.png", "--tiled", "--size", "64", "-o", "big.png")
    _, _, err = command(*words)
    assert "steps: 0 of 4 (tile 3 of 4)" in err and "steps: 4 of 4\n" in err
    (tmp_path / "big.png").unlink()
    before = Stage.untiled_denoiser

    def interrupted(self, cond):
        denoise = before(self, cond)

        def stop_at_a_corner(z, logsnr):
            if cond.lowres is not None and z.shape[3] < 64:
                raise KeyboardInterrupt
            return denoise(z, logsnr)

        return stop_at_a_corner

    monkeypatch.setattr(Stage, "untiled_denoiser", interrupted)
    code, out, err = command(*words)
    assert (code, out) == (130, "") and err.endswith("calotype: interrupted\n")
    assert [path.name for path in tmp_path.glob("*.png")] == ["a.png"]
