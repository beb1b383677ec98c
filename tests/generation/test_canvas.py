"""What of an image is made anew, in which windows; what is kept is kept to the byte."""

import numpy as np
import pytest

from calotype.errors import UsageError
from calotype.generation.canvas import (
    Canvas,
    Window,
    extended,
    filled,
    grown,
    hole_view,
    masked,
    view,
    window_round,
    windows_outward,
)


def random_image(random, height, width):
    return random.integers(0, 256, (height, width, 4), dtype=np.uint8)


def test_kept_bytes_of_random_images_and_masks_are_equal():
    random = np.random.default_rng(0)
    for _ in range(200):
        height, width = random.integers(3, 40, 2)
        pixels = random_image(random, height, width)
        hole = random.random((height, width)) < random.random()
        hole[random.integers(height), random.integers(width)] = True
        canvas = masked(pixels, hole)
        window = window_round(canvas, float(random.random()))
        made = random.integers(0, 256, (*random.integers(4, 50, 2), 3), dtype=np.uint8)
        result = filled(canvas, window, made, feather=0)
        assert np.array_equal(result.pixels[~hole], pixels[~hole])
        assert (result.pixels[hole][:, 3] == 255).all() and not result.hole.any()
        assert np.array_equal(canvas.pixels, pixels)  # the canvas itself is not written to


def test_a_window_of_the_same_size_goes_in_as_it_is():
    random = np.random.default_rng(1)
    pixels, made = random_image(random, 20, 30), random_image(random, 20, 30)[..., :3]
    canvas = masked(pixels, np.ones((20, 30), bool))
    whole = Window(0, 0, 20, 30)
    assert np.array_equal(filled(canvas, whole, made, feather=0).pixels[..., :3], made)
    opaque = pixels | np.array([0, 0, 0, 255], np.uint8)
    seen = view(masked(opaque, canvas.hole), whole, (20, 30), (255, 255, 255))
    assert np.array_equal(seen, opaque[..., :3])
    assert hole_view(canvas, whole, (20, 30)).all()


def test_feathering_fades_over_so_many_pixels_outside_and_no_further():
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[..., 3] = 255
    hole = np.zeros((40, 40), bool)
    hole[15:25, 15:25] = True
    made = np.full((40, 40, 3), 200, np.uint8)
    result = filled(masked(pixels, hole), Window(0, 0, 40, 40), made, feather=4).pixels[..., 0]
    assert (result[hole] == 200).all()
    assert result[20, 10:15].tolist() == [0, 40, 80, 120, 160]
    assert not result[:, :10].any() and not result[:11].any()


@pytest.mark.parametrize("pixels", [0, 1, 7, 8, 23])
def test_a_hole_grows_by_so_many_pixels(pixels):
    hole = np.zeros((80, 90), bool)
    hole[30:35, 40:42] = True
    expected = np.zeros_like(hole)
    expected[30 - pixels : 35 + pixels, 40 - pixels : 42 + pixels] = True
    assert np.array_equal(grown(hole, pixels), expected)


def test_the_window_is_a_square_round_the_hole_or_all():
    hole = np.zeros((400, 600), bool)
    hole[10:50, 500:520] = True
    canvas = masked(np.zeros((400, 600, 4), np.uint8), hole)
    window = window_round(canvas, 0.5)
    assert (window.height, window.width, window.top) == (80, 80, 0)
    assert hole[window.slices].sum() == hole.sum()
    assert window_round(canvas, 0.0) == Window(10, 490, 40, 40)
    assert window_round(canvas, 5.0) == Window(0, 0, 400, 600)


@pytest.mark.parametrize(
    "margins", [(64, 0, 0, 0), (0, 0, 300, 0), (0, 200, 0, 0), (50, 60, 70, 80), (0, 0, 1, 1)]
)
@pytest.mark.parametrize("size", [(64, 64), (64, 100), (128, 64)])
def test_margins_are_covered_from_the_source_outward(margins, size):
    pixels = np.zeros((*size, 4), np.uint8)
    canvas = extended(pixels, margins, most_pixels=10**6)
    left, top, right, bottom = margins
    assert canvas.size == (size[0] + top + bottom, size[1] + left + right)
    missing, side = canvas.hole.copy(), min(size)
    for window in windows_outward(canvas):
        part = missing[window.slices]
        assert part.shape == (side, side)
        if part.any():  # at least a quarter is there: half of it straight on, a corner's less
            assert part.mean() <= 0.75 + 1e-9
        part[:] = False
    assert not missing.any()


def test_nothing_to_generate_is_refused():
    with pytest.raises(UsageError, match="--invert-mask"):
        masked(np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4), bool))


def test_the_digest_says_the_hole_and_its_size():
    hole = np.zeros((4, 6), bool)
    hole[0, 0] = True
    canvas = masked(np.zeros((4, 6, 4), np.uint8), hole)
    other = Canvas(canvas.pixels, hole.reshape(6, 4), canvas.source)
    assert canvas.digest != other.digest != masked(canvas.pixels, ~hole).digest


def test_a_small_source_is_extended_in_larger_windows():
    canvas = extended(np.zeros((1, 1, 4), np.uint8), (40, 0, 0, 30), most_pixels=10**6)
    missing, count = canvas.hole.copy(), 0
    for window in windows_outward(canvas, least=16):
        count += bool(missing[window.slices].any())
        missing[window.slices] = False
    assert not missing.any() and count <= 30
    with pytest.raises(UsageError, match="expected at most 100 pixels"):
        extended(np.zeros((9, 9, 4), np.uint8), (3, 0, 0, 0), most_pixels=100)
