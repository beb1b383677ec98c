"""PSNR, SSIM, colours and grids in closed form."""

import math

import pytest
import torch

from calotype.errors import UsageError
from calotype.evaluation.metrics.pixels import colour_shift, grid_artefacts, mean_colour, psnr, ssim


def noise(count=4, side=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)


def test_psnr_closed_form():
    x = torch.zeros(3, 3, 4, 4)
    y = torch.stack([torch.full((3, 4, 4), v) for v in (2.0, 0.2, 0.0)])
    assert psnr(x, y)[:2].tolist() == pytest.approx([0.0, 20.0], abs=1e-5)
    assert psnr(x, y)[2] == math.inf
    with pytest.raises(ValueError, match="equal shapes"):
        psnr(x, y[:1])


def test_levels_and_floats_are_the_same_images():
    x, y = noise(seed=1), noise(seed=2)
    u, v = (image.double() / 127.5 - 1 for image in (x, y))
    torch.testing.assert_close(psnr(x, y), psnr(u, v))
    torch.testing.assert_close(ssim(x, y), ssim(u, v))
    torch.testing.assert_close(colour_shift(x, y), colour_shift(u, v))


def test_psnr_goes_by_image_in_any_batch():
    x, y = noise(20, 8), noise(20, 8, seed=1)
    torch.testing.assert_close(psnr(x, y)[17:18], psnr(x[17:18], y[17:18]))
    assert psnr(x, y).shape == (20,)


def test_ssim_of_flat_images_is_that_of_their_brightness():
    a, b = 100.0, 140.0
    c1 = (0.01 * 255) ** 2
    x, y = (torch.full((1, 3, 16, 16), round(v), dtype=torch.uint8) for v in (a, b))
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    assert float(ssim(x, y)) == pytest.approx(expected, rel=1e-6)
    assert float(ssim(x, x)) == pytest.approx(1)


def test_ssim_takes_the_range_of_pixels_not_of_the_images():
    from torchmetrics.functional.image import structural_similarity_index_measure

    x = noise(1) // 16 + 100  # of little contrast, as the range of the images has it
    y = noise(1, seed=1) // 16 + 100
    guessed = float(structural_similarity_index_measure(x.double(), y.double()))
    assert float(ssim(x, y)) > guessed + 0.3
    with pytest.raises(UsageError, match="10x10 for SSIM"):
        ssim(x[..., :10, :10], y[..., :10, :10])


def test_blur_lowers_both():
    x = noise(2)
    slight, strong = (
        torch.nn.functional.avg_pool2d(x.float(), size, 1, size // 2, count_include_pad=False)
        .round()
        .to(torch.uint8)
        for size in (3, 7)
    )
    for metric in (psnr, ssim):
        assert bool((metric(x, slight) > metric(x, strong)).all())


def test_colour_shift_is_the_samples_less_the_references():
    x = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    y = x.clone()
    y[:, 0] += 10
    y[1, 2] -= 20
    assert colour_shift(y, x).tolist() == [[10, 0, 0], [10, 0, -20]]
    assert mean_colour(y)[1].tolist() == [110, 100, 80]


@pytest.mark.parametrize("period", [2, 4, 8])
def test_white_noise_has_no_grid(period):
    assert grid_artefacts(noise(16), period) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("size", [0, 255, 77])
def test_flat_images_have_no_grid(size):
    assert grid_artefacts(torch.full((2, 3, 48, 48), size, dtype=torch.uint8), 4) == pytest.approx(
        1
    )


def test_a_comb_has_its_period_and_no_other():
    comb = noise(4, 80).double() * 0.1 + 100
    comb[..., ::4] += 20
    comb = comb.round().to(torch.uint8)
    found = grid_artefacts(comb, 4)
    assert found > 10
    assert grid_artefacts(comb.transpose(2, 3), 4) == pytest.approx(found)
    assert grid_artefacts(comb.roll(1, 3), 4) == pytest.approx(found)
    assert grid_artefacts(comb, 5) == pytest.approx(1, abs=0.2)


def test_the_ratio_of_a_weak_comb_is_known():
    # Variance s^2 of noise has power s^2 W a line at each frequency, a comb of height h every p
    # pixels (h W / p)^2 at each of its own.
    generator = torch.Generator().manual_seed(0)
    sigma, height, side = 10.0, 8.0, 64
    images = 128 + sigma * torch.randn(64, 3, side, side, generator=generator, dtype=torch.float64)
    images[..., ::4] += height
    images = images / 127.5 - 1
    across = 1 + (height / 4) ** 2 * side / (sigma**2 + 1 / 12)
    # Down the columns there is none: the mean of both directions.
    assert grid_artefacts(images, 4) == pytest.approx((across + 1) / 2, rel=0.02)


def test_an_image_without_a_grid_is_near_one():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    smooth = torch.sin(x / 9) + torch.cos(y / 7 + x / 20)
    images = (smooth / 2.1).expand(1, 3, -1, -1)
    assert 0.3 < grid_artefacts(images, 4) < 1.3


def test_periods_that_do_not_fit_are_refused():
    for period, side in ((1, 64), (5, 64), (16, 64)):
        with pytest.raises(UsageError, match=f"a period of {period} for images of {side}x{side}"):
            grid_artefacts(noise(1, side), period)
