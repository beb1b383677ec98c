import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from calotype.cascade.png import encode_png, read_recipe, write_png
from calotype.cascade.provenance import parameters_text
from calotype.errors import CalotypeError, UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
STAGE = {"height": 6, "width": 9, "sampling": {"steps": 4, "sampler": "ddim"}}
RECIPE = {
    "caption": "a fox",
    "negative_caption": "blur",
    "seed": 7,
    "version": "0.1",
    "model": {"name": "small", "weights": "abcdef0123456789"},
    "stages": [STAGE],
}


def test_pixels_and_recipe_come_back(tmp_path):
    path = tmp_path / "a.png"
    write_png(path, PIXELS, RECIPE)
    assert read_recipe(path) == RECIPE
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image), PIXELS)
        assert json.loads(image.text["calotype"]) == RECIPE
        parameters = image.text["parameters"].splitlines()
    assert parameters[0] == "a fox"
    assert parameters[1] == "Negative prompt: blur"
    assert parameters[2].startswith("Steps: 4, Sampler: ddim, CFG scale: None, Seed: 7, Size: 9x6")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    "caption",
    ["", "\0\0", "\ud800", "日本語の狐 🦊", 'quotes "and"\nlines', "\0" * 9_000_000, "é" * 10**7],
    ids=["empty", "nul", "surrogate", "cjk", "lines", "10 MB of NUL", "10 MB"],
)
def test_any_caption_is_kept_and_other_readers_still_open_the_file(tmp_path, caption):
    path = tmp_path / "a.png"
    write_png(path, PIXELS, {**RECIPE, "caption": caption})
    got = read_recipe(path)["caption"]
    assert got == caption or (len(caption) > 10**6 and got == caption[:1_000_000])
    with Image.open(path) as image:
        image.load()
        assert "Steps: 4" in image.text["parameters"]


def test_no_recipe_no_png_no_file(tmp_path):
    bare, text = tmp_path / "bare.png", tmp_path / "text.png"
    write_png(bare, PIXELS)
    text.write_text("hello")
    for path, message in [
        (bare, "no recipe"),
        (text, "not a PNG"),
        (tmp_path / "no.png", "cannot read"),
        (tmp_path, "cannot read"),
    ]:
        with pytest.raises(UsageError, match=message):
            read_recipe(path)


def chunk(kind, body):
    check = struct.pack(">I", zlib.crc32(kind + body))
    return struct.pack(">I", len(body)) + kind + body + check


@pytest.mark.parametrize(
    "body", [b"calotype\0{", b"calotype\0[]", b"calotype\0" + b"[" * 100_000, b"calotype\0\xff"]
)
def test_hostile_recipes(tmp_path, body):
    path = tmp_path / "a.png"
    data = encode_png(PIXELS)
    path.write_bytes(data[:33] + chunk(b"tEXt", body) + data[33:])
    with pytest.raises(CalotypeError, match="damaged"):
        read_recipe(path)


def test_a_flipped_bit_and_a_cut_are_noticed(tmp_path):
    path = tmp_path / "a.png"
    data = bytearray(encode_png(PIXELS, RECIPE))
    place = data.index(b"a fox")
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(CalotypeError, match="damaged"):
        read_recipe(path)
    path.write_bytes(data[: place - 20])
    with pytest.raises(CalotypeError):
        read_recipe(path)


def test_parameters_survive_an_odd_recipe():
    assert "Steps" in parameters_text({})


def test_recipe_less_bytes_are_a_plain_png():
    with Image.open(io.BytesIO(encode_png(PIXELS))) as image:
        assert image.size == (9, 6) and image.info == {}
