"""Finding 33: cascades and images as people use them from Python and in notebooks."""

import copy
import multiprocessing
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import calotype
from calotype.cascade import image_to_image, inpaint
from calotype.cascade.pixels import as_images, from_pixels
from calotype.errors import UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def _sample(cascade):
    return cascade.sample(["a fox"], seeds=[1], stop_at=8).images[-1]


def test_a_cascade_is_pickled_and_copied(cascade):
    expected = _sample(cascade)
    for same in (pickle.loads(pickle.dumps(cascade)), copy.deepcopy(cascade)):
        assert torch.equal(_sample(same), expected)


@pytest.mark.slow
def test_a_cascade_goes_to_other_processes(cascade):
    # Its own method: a new process cannot import this file.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        made = pool.apply_async(cascade.sample, [["a fox"]], {"seeds": [1], "stop_at": 8})
        found = made.get(timeout=100).images[-1]
    torch.testing.assert_close(found, _sample(cascade))


def test_public_names_are_listed():
    code = "import calotype, sys; print(*dir(calotype)); assert 'torch' not in sys.modules"
    names = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert {"load", "Cascade", "inpaint", "Stage"} <= set(names)
    assert "load_stage" in dir(calotype.cascade)


def test_a_notebook_shows_images(cascade):
    one = cascade.sample(["a"], seeds=[1], stop_at=8)
    assert one._repr_png_().startswith(b"\x89PNG") and one._repr_html_() is None
    many = cascade.sample(["a"] * 70, seeds=range(70), stop_at=8)
    html = many._repr_html_()
    assert many._repr_png_() is None
    assert html.count("<img") == 64 and "and 6 more" in html and "seed 63" in html


def test_images_are_taken_in_any_form(cascade, tmp_path):
    image = Image.fromarray(PIXELS)
    image.save(tmp_path / "a.png")
    expected = from_pixels(PIXELS[None])
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)[None]
    clear = np.dstack([PIXELS, np.full((8, 8), 255, np.uint8)])
    for given in (PIXELS, image, tmp_path / "a.png", str(tmp_path / "a.png"), tensor, clear):
        assert torch.equal(as_images(given), expected)
    assert torch.equal(as_images([image, PIXELS]), expected.repeat(2, 1, 1, 1))
    first = cascade.upscale(expected, ["a"], seeds=[0]).images[-1]
    assert torch.equal(cascade.upscale(image, ["a"], seeds=[0]).images[-1], first)
    keep = np.zeros((8, 8), bool)
    keep[:4] = True
    for mask in (keep, Image.fromarray(keep), torch.from_numpy(keep)[None, None]):
        half = inpaint(cascade, PIXELS, mask, ["a"], seeds=[0], stop_at=8).images[-1]
        assert torch.equal(half[..., :4, :], expected[..., :4, :])
    sampled = image_to_image(cascade, image, ["a"], strength=0.5, seeds=[0], stop_at=8)
    assert sampled.images[-1].shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "torch.int64"),
        (torch.zeros(3, 8, 8), "(B, 3, H, W)"),
        (torch.full((1, 3, 8, 8), 200.0), "outside [-1, 1]"),
        (torch.full((1, 3, 8, 8), torch.nan), "outside [-1, 1]"),
        (np.zeros((8, 8, 3)), "float64; expected (H, W, 3)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "expected (H, W, 3)"),
        ([PIXELS, PIXELS[:4]], "one size"),
        ([], "at least one"),
        (None, "NoneType"),
        ("nowhere.png", "cannot read nowhere.png"),
        (".", "is a folder"),
    ],
    ids=str,
)
def test_what_is_no_image_is_told(cascade, given, message):
    with pytest.raises(UsageError) as caught:
        cascade.upscale(given, ["a"], seeds=[0])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_bytes_of_zeros_and_ones_are_nearly_black():
    dark = torch.ones(1, 3, 8, 8, dtype=torch.uint8)
    assert float(as_images(dark).max()) < -0.99


def test_weights_of_half_precision_are_told(cascade):
    half = copy.deepcopy(cascade)
    half.stages[0].to(torch.float16)
    with pytest.raises(UsageError, match=r"got weights of torch\.float16; expected float32"):
        _sample(half)
