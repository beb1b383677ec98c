"""Guidance by a gradient turns the denoiser of all data into that of the data that are wanted."""

import math

import pytest
import torch

from calotype.diffusion import (
    Estimate,
    GlobalNoise,
    Move,
    SamplerState,
    alpha_sigma,
    ancestral_step,
    broadcast_to_image,
    denoising_steps,
    dpmpp_2m_sde_step,
    karras_levels,
)
from calotype.diffusion.gradient_guidance import GradientGuidance
from calotype.errors import UsageError

LEVELS = torch.tensor([-4.0, 0.0, 3.0], dtype=torch.float64)
IMAGES = torch.randn(3, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
WANTED, SPREAD = 0.3, 0.5  # a measurement y of each pixel, with this variance
MEANS = torch.tensor([[-0.8, 0.4], [0.6, -0.2], [0.1, 0.7]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
STD = 0.3
close = torch.testing.assert_close


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


def class_likelihood(wanted):
    """log p(class | z) of the mixture's points, exactly."""

    def log_likelihood(z, logsnr):
        alpha, sigma = (v[:, None] for v in alpha_sigma(logsnr.double()))
        distance = (z[:, None] - alpha[:, :, None] * MEANS).square().sum(2)
        logits = WEIGHTS.log() - distance / (2 * (alpha**2 * STD**2 + sigma**2))
        return logits.log_softmax(1)[:, wanted]

    return log_likelihood


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_a_mixture_guided_to_a_class_is_denoised_as_that_class_alone(wanted, mixture):
    z = torch.randn(64, 2, generator=torch.Generator().manual_seed(1)).double()
    levels = torch.linspace(-8, 8, 64)
    everything, one = mixture(MEANS, WEIGHTS, STD), MEANS[wanted : wanted + 1]
    alone = mixture(one, torch.ones(1, dtype=torch.float64), STD)
    guided = GradientGuidance(class_likelihood(wanted), 1.0)(everything)
    close(guided(z, levels).x_hat, alone(z, levels).x_hat, rtol=0, atol=1e-4)
    assert (everything(z, levels).x_hat - alone(z, levels).x_hat).abs().max() > 0.5


def sampled(guidance, denoiser, steps, *, step=None, count=1000):
    """Images, (B, 2), with the same start and noise whatever the guidance."""
    step = ancestral_step(0.5) if step is None else step
    noise = GlobalNoise(torch.Generator().manual_seed(3))
    z = torch.randn(count, 2, generator=torch.Generator().manual_seed(2)).double()
    levels = karras_levels(steps, sigma_max=50, sigma_min=0.02)
    *_, end = denoising_steps(guidance(denoiser), z, levels, noise, step=step)
    return end.z


@pytest.mark.parametrize("step", [ancestral_step(0.0), ancestral_step(1.0), dpmpp_2m_sde_step])
def test_both_forms_meet_in_many_steps(step, mixture):
    """On the same noise, at first order; and what they meet in is the class."""
    distances = []
    for steps in (40, 80, 160):
        score, mean = (
            sampled(
                GradientGuidance(class_likelihood(0), 1.0, form),
                mixture(MEANS, WEIGHTS, STD),
                steps,
                step=step,
            )
            for form in ("score", "mean")
        )
        distances.append(float((score - mean).norm(dim=1).mean()))
    assert distances[1] < 0.65 * distances[0]
    assert distances[2] < 0.65 * distances[1]
    assert distances[2] < 0.05
    for made in (score, mean):
        close(made.mean(0), MEANS[0], rtol=0, atol=0.05)
        close(made.std(0), torch.full_like(MEANS[0], STD), rtol=0.1, atol=0)


def test_the_mean_moves_by_the_learned_variance_times_the_gradient():
    level, level_next = LEVELS[1], LEVELS[2]
    fraction = torch.linspace(0, 1, IMAGES.numel()).double().view_as(IMAGES)
    pull = GradientGuidance(Likelihood(torch.full_like(IMAGES, WANTED)), 2.0, "mean")
    levels = level.expand(3)
    estimate = pull(lambda z, logsnr: Estimate(z, fraction))(IMAGES, levels)
    assert torch.equal(estimate.x_hat, IMAGES)  # the score stays as it was

    def moved(estimate):
        state = SamplerState(0, level, IMAGES, estimate)
        move = Move(state, level_next, lambda: torch.zeros_like(IMAGES), denoise)
        return ancestral_step(0.0)(move)

    # Nichol & Dhariwal 2021, equation 15: between beta~ and beta on a log scale.
    alpha_bar, alpha_bar_next = torch.sigmoid(level), torch.sigmoid(level_next)
    beta = 1 - alpha_bar / alpha_bar_next
    posterior = beta * (1 - alpha_bar_next) / (1 - alpha_bar)
    variance = torch.exp(fraction * beta.log() + (1 - fraction) * posterior.log())
    gradient = alpha_bar.sqrt() * (WANTED - alpha_bar.sqrt() * IMAGES) / (1 - alpha_bar + SPREAD)
    close(moved(estimate) - moved(Estimate(IMAGES, fraction)), variance * 2.0 * gradient)


def test_the_step_to_the_clean_image_is_not_moved():
    state = SamplerState(0, LEVELS[2], IMAGES, Estimate(IMAGES, gradient=IMAGES))
    move = Move(state, torch.tensor(math.inf), lambda: torch.zeros_like(IMAGES), denoise)
    close(ancestral_step(0.0)(move), IMAGES)
    close(dpmpp_2m_sde_step(move), IMAGES)


@pytest.mark.parametrize("form", ["score", "mean"])
def test_known_pixels_are_not_moved(form):
    known = torch.tensor([[True, False], [False, True]]).expand(3, 1, 2, 2)
    pull = GradientGuidance(Likelihood(torch.zeros_like(IMAGES)), 5.0, form, known)
    noise = (GlobalNoise(torch.Generator().manual_seed(3)) for _ in range(2))
    free, guided = (
        list(denoising_steps(one, IMAGES, karras_levels(8), next(noise)))
        for one in (denoise, pull(denoise))
    )
    here = known.expand_as(IMAGES)
    for before, after in zip(free, guided, strict=True):
        assert torch.equal(before.z[here], after.z[here])
    assert (free[-1].z - guided[-1].z)[~here].abs().min() > 0


@pytest.mark.parametrize("form", ["score", "mean"])
def test_two_guides_pull_as_their_sum(form):
    one, two = (Likelihood(torch.full_like(IMAGES, wanted)) for wanted in (0.2, -0.7))
    both = GradientGuidance(lambda z, level: 2 * one(z, level) + 3 * two(z, level), 1.0, form)
    got = GradientGuidance(two, 3.0, form)(GradientGuidance(one, 2.0, form)(denoise))
    expected = both(denoise)(IMAGES, LEVELS)
    close(got(IMAGES, LEVELS).x_hat, expected.x_hat)
    if form == "mean":
        close(got(IMAGES, LEVELS).gradient, expected.gradient)


def test_it_gives_the_posterior_mean_of_gaussian_data():
    guidance = GradientGuidance(Likelihood(torch.full_like(IMAGES, WANTED)), 1.0)
    estimate = guidance(denoise)(IMAGES, LEVELS)
    alpha, sigma = (broadcast_to_image(v, IMAGES) for v in alpha_sigma(LEVELS))
    gain = sigma.square() / (sigma.square() + SPREAD)
    prior = alpha * IMAGES
    close(estimate.x_hat, prior + gain * (WANTED - prior))
    assert estimate.variance_fraction is IMAGES


def test_it_works_where_gradients_are_off():
    guidance = GradientGuidance(Likelihood(torch.zeros_like(IMAGES)), 2.0)
    with torch.no_grad():
        estimate = guidance(denoise)(IMAGES, LEVELS)
    assert not estimate.x_hat.requires_grad
    assert not torch.equal(estimate.x_hat, denoise(IMAGES, LEVELS).x_hat)


def test_scale_zero_is_off():
    assert GradientGuidance(Likelihood(torch.zeros_like(IMAGES)), 0.0)(denoise) is denoise


@pytest.mark.parametrize("form", ["score", "mean"])
def test_a_part_of_the_batch_is_guided_as_in_the_whole(form):
    wanted = torch.linspace(-1, 1, 3).double()[:, None, None, None].expand_as(IMAGES)
    known = torch.arange(12).view(3, 1, 2, 2) % 5 == 0
    guidance = GradientGuidance(Likelihood(wanted), 1.5, form, known)
    whole = guidance(denoise)(IMAGES, LEVELS)
    part = guidance.rows(slice(1, 3))(denoise)(IMAGES[1:], LEVELS[1:])
    close(part.x_hat, whole.x_hat[1:])
    if form == "mean":
        close(part.gradient, whole.gradient[1:])


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_scales_out_of_range_are_refused(scale):
    with pytest.raises(UsageError, match="scale"):
        GradientGuidance(Likelihood(IMAGES), scale)
