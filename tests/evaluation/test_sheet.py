"""Sheets: every image in its place, captions below, files that stay small."""

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.errors import CalotypeError
from calotype.evaluation.sheet import Cell, Detail, most_detailed, render_sheet, save_image


def flat(red, green, blue, side=8):
    colour = torch.tensor([red, green, blue], dtype=torch.float32)
    return (colour[:, None, None] / 127.5 - 1).expand(3, side, side)


CELLS = [
    Cell((flat(255, 0, 0), flat(0, 255, 0, side=64)), "first", failed=True),
    Cell((flat(0, 0, 255), flat(9, 9, 9)), "a caption that does not fit in two lines " * 9),
    Cell((flat(1, 2, 3), flat(4, 5, 6)), ""),
]


def test_images_are_in_their_places():
    pixels = np.asarray(render_sheet(CELLS, columns=2, side=32))
    height, width = pixels.shape[:2]
    assert height % 2 == 0 and width > 2 * 64
    middle = 8 + 16
    assert pixels[middle, 8 + 16].tolist() == [255, 0, 0]
    assert pixels[middle, 8 + 32 + 16].tolist() == [0, 255, 0]
    assert pixels[middle, 8 + 64 + 8 + 16].tolist() == [0, 0, 255]
    below = middle + (height - 8) // 2
    assert pixels[below, 8 + 16].tolist() == [1, 2, 3]


def test_failures_are_red():
    one = np.asarray(render_sheet(CELLS[:1], columns=8, side=32)).astype(int)
    text = one[8 + 32 :]
    assert (text[..., 0] - text[..., 1]).max() > 100
    calm = Cell(CELLS[0].images, CELLS[0].caption)
    other = np.asarray(render_sheet([calm], columns=8, side=32)).astype(int)[8 + 32 :]
    assert (other[..., 0] - other[..., 1]).max() < 30 and other.min() < 150


def test_small_images_are_enlarged_without_smoothing():
    board = torch.ones(3, 2, 2)
    board[:, 0, 0] = -1
    pixels = np.asarray(render_sheet([Cell((board,), "x")], columns=1, side=32))
    assert set(np.unique(pixels[8:40, 8:40])) == {0, 255}


def test_files_stay_below_the_limit(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    save_image(image, tmp_path / "a.jpg", limit=20_000)
    assert 0 < (tmp_path / "a.jpg").stat().st_size <= 20_000
    with pytest.raises(CalotypeError, match="at most 20000"):
        save_image(image, tmp_path / "a.png", limit=20_000)
    assert not (tmp_path / "a.png").exists()


def test_the_same_part_at_every_size():
    x = torch.zeros(3, 16, 16)
    x[:, 9:11, 3:5] = 1
    # rows 8 to 11 and columns 2 to 5 hold all of the spot
    assert most_detailed(x) == Detail(4, 1)
    assert torch.equal(Detail(4, 1).crop(x), x[:, 8:12, 2:6])
    large = x.repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert most_detailed(large) == Detail(4, 1)
    assert Detail(4, 1).crop(large).shape == (3, 16, 16)
