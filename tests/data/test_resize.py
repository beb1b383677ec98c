import numpy as np
import pytest
import torch

from calotype.data.painting import composite
from calotype.data.resize import TooSmall, area_resize, fit_image


def brute_force_area(row, new_length):
    """Average a piecewise constant function over equal intervals, by fine sampling."""
    fine = np.repeat(row, new_length)  # a common refinement of both grids
    return fine.reshape(new_length, len(row)).mean(axis=1)


@pytest.mark.parametrize(("old", "new"), [(8, 4), (7, 3), (10, 7), (256, 64), (256, 224), (5, 5)])
def test_shrinking_averages_exact_areas(old, new):
    rows = np.random.default_rng(0).random((3, old))
    expected = np.stack([brute_force_area(row, new) for row in rows])
    x = torch.from_numpy(rows).float()[None, None].expand(1, 2, 3, old)
    found = area_resize(x, (3, new))
    torch.testing.assert_close(found[0, 1], torch.from_numpy(expected).float())
    upright = area_resize(x.transpose(2, 3), (new, 3))
    torch.testing.assert_close(upright, found.transpose(2, 3))


def test_enlarging_keeps_planes_and_size():
    x = torch.linspace(0, 1, 8).expand(1, 1, 8, 8)
    found = area_resize(x, 16)
    assert found.shape == (1, 1, 16, 16)
    middle = torch.linspace(0, 1, 8).reshape(1, 1, 8)
    expected = torch.nn.functional.interpolate(middle, 16, mode="linear")[0, 0, 3:13]
    torch.testing.assert_close(found[0, 0, 5, 3:13], expected, atol=0.01, rtol=0)
    torch.testing.assert_close(area_resize(torch.ones(1, 1, 3, 5), (4, 9)), torch.ones(1, 1, 4, 9))


def test_shrinking_commutes_with_the_background():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (64, 64, 4), dtype=np.uint8)
    image[:20, :, 3] = 0
    colour = np.array([[30, 200, 90]], np.float32)
    shrunk_first = composite(fit_image(image, 16)[None], colour)
    painted = torch.from_numpy(composite(image[None], colour)).permute(0, 3, 1, 2)
    painted_first = area_resize(painted, 16).permute(0, 2, 3, 1).numpy()
    # Both colour and alpha are rounded to 8 bits once: half a step each, of 2/255.
    assert np.abs(shrunk_first - painted_first).max() <= 2 / 255 + 1e-6


def test_invisible_colours_do_not_bleed():
    image = np.zeros((4, 4, 4), np.uint8)
    image[..., 0] = 255  # transparent red
    image[:, ::2] = (0, 0, 255, 255)
    assert fit_image(image, 2)[0, 0].tolist() == [0, 0, 255, 128]


def test_crop_keeps_the_centre_and_pad_keeps_everything():
    image = np.zeros((4, 8, 4), np.uint8)
    image[...] = (10, 20, 30, 255)
    image[:, 2:6] = (200, 100, 50, 255)
    assert (fit_image(image, 4, fit="crop") == (200, 100, 50, 255)).all()
    padded = fit_image(image, 8, fit="pad")
    assert (padded[2:6] == image).all()
    assert (padded[:2] == 0).all()
    assert (padded[6:] == 0).all()


def test_small_images_are_enlarged_or_refused():
    image = np.full((5, 9, 4), 77, np.uint8)
    assert fit_image(image, 8).shape == (8, 8, 4)
    with pytest.raises(TooSmall, match="got 9x5 pixels; expected at least 8"):
        fit_image(image, 8, small="skip")
    assert fit_image(image, 8, fit="pad", small="skip").shape == (8, 8, 4)
