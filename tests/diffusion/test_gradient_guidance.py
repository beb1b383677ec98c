"""Guidance by a gradient turns the denoiser of Gaussian data into that of the posterior."""

import pytest
import torch

from calotype.diffusion import Estimate, alpha_sigma, broadcast_to_image
from calotype.diffusion.gradient_guidance import GradientGuidance
from calotype.errors import UsageError

LEVELS = torch.tensor([-4.0, 0.0, 3.0], dtype=torch.float64)
IMAGES = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
WANTED, SPREAD = 0.3, 0.5  # a measurement y of each pixel, with this variance


def denoise(z, logsnr):
    """Pixels are standard normal: the mean of x given z."""
    return Estimate(broadcast_to_image(alpha_sigma(logsnr)[0], z) * z, variance_fraction=z)


class Likelihood:
    """log p(y | z) of Gaussian measurements y, a row of which belongs to each image."""

    def __init__(self, wanted):
        self.wanted = wanted

    def __call__(self, z, logsnr):
        alpha, sigma = (broadcast_to_image(v, z) for v in alpha_sigma(logsnr))
        error = self.wanted - alpha * z
        return -(error.square() / (sigma.square() + SPREAD) / 2).flatten(1).sum(1)

    def rows(self, rows):
        return Likelihood(self.wanted[rows])


def test_it_gives_the_posterior_mean_of_gaussian_data():
    guidance = GradientGuidance(Likelihood(torch.full_like(IMAGES, WANTED)), 1.0)
    estimate = guidance(denoise)(IMAGES, LEVELS)
    alpha, sigma = (broadcast_to_image(v, IMAGES) for v in alpha_sigma(LEVELS))
    gain = sigma.square() / (sigma.square() + SPREAD)
    prior = alpha * IMAGES
    torch.testing.assert_close(estimate.x_hat, prior + gain * (WANTED - prior))
    assert estimate.variance_fraction is IMAGES


def test_it_works_where_gradients_are_off():
    guidance = GradientGuidance(Likelihood(torch.zeros_like(IMAGES)), 2.0)
    with torch.no_grad():
        estimate = guidance(denoise)(IMAGES, LEVELS)
    assert not estimate.x_hat.requires_grad
    assert not torch.equal(estimate.x_hat, denoise(IMAGES, LEVELS).x_hat)


def test_scale_zero_is_off():
    assert GradientGuidance(Likelihood(torch.zeros_like(IMAGES)), 0.0)(denoise) is denoise


def test_a_part_of_the_batch_is_guided_as_in_the_whole():
    wanted = torch.linspace(-1, 1, 3).double()[:, None, None, None].expand_as(IMAGES)
    guidance = GradientGuidance(Likelihood(wanted), 1.5)
    whole = guidance(denoise)(IMAGES, LEVELS).x_hat
    part = guidance.rows(slice(1, 3))(denoise)(IMAGES[1:], LEVELS[1:]).x_hat
    torch.testing.assert_close(part, whole[1:])


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_scales_out_of_range_are_refused(scale):
    with pytest.raises(UsageError, match="scale"):
        GradientGuidance(Likelihood(IMAGES), scale)
