"""`sample --like` with a changed size, and with recipes that are not what calotype wrote."""

import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from calotype.cascade.png import read_recipe


def pixels(name):
    with Image.open(name) as image:
        return np.asarray(image).astype(int)


@pytest.mark.parametrize(("sampled", "wanted"), [(8, 32), (32, 8), (16, 16)])
def test_another_size_of_the_same_image(command, sampled, wanted):
    assert command("sample", "fox", "--seed", "3", "-o", "a.png", "--size", str(sampled))[0] == 0
    code, _, err = command("sample", "--like", "a.png", "--size", str(wanted), "-o", "b.png")
    assert (code, err) == (0, "")
    command("sample", "fox", "--seed", "3", "-o", "c.png", "--size", str(wanted))
    assert np.array_equal(pixels("b.png"), pixels("c.png"))


@pytest.mark.parametrize("sampled", [8, 16])
def test_other_weights_are_refused_at_any_size(command, tmp_path, sampled):
    command("sample", "fox", "-o", "a.png", "--size", str(sampled))
    recipe = read_recipe(tmp_path / "a.png")
    recipe["model"]["weights"] = "0" * 64
    _write(recipe, "b.png")
    for size in ("8", "32"):
        code, _, err = command("sample", "--like", "b.png", "--size", size, "-o", "c.png")
        assert code == 2 and "the weights 000000000000" in err, err


@pytest.mark.parametrize(
    "change",
    [
        {"runtime": {"threads": 1, "dtype": ["float32"]}},
        {"model": {"weights": 3}},
        {"stages": [{"resolution": 8, "height": 8, "width": 8, "dtype": [1], "sampling": {}}]},
        {"loras": "x"},
        {"loras": [1]},
    ],
)
def test_wrong_kinds_in_a_recipe_are_one_line(command, tmp_path, change):
    command("sample", "fox", "-o", "a.png", "--size", "8")
    _write(read_recipe(tmp_path / "a.png") | change, "b.png")
    code, out, err = command("sample", "--like", "b.png", "-o", "c.png")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "damaged" in err and "defect" not in err


def _write(recipe, name):
    info = PngInfo()
    info.add_text("calotype", json.dumps(recipe))
    Image.new("RGB", (8, 8)).save(name, pnginfo=info)
