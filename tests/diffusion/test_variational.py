"""The variational bound against closed forms, torch's distributions and the published code."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from calotype.diffusion import (
    DiscreteSchedule,
    Estimate,
    GlobalNoise,
    add_noise,
    alpha_sigma,
    bound_terms,
    linear_betas,
    prior_term,
    schedule_from_betas,
    some_timesteps,
    squaredcos_betas,
    variational_bound,
)
from calotype.diffusion.variational import discretized_log_likelihood, normal_kl

DOUBLE = torch.float64
VALUES = torch.arange(256, dtype=DOUBLE) / 127.5 - 1  # all of 8 bits


def table(name: str, steps: int = 1000) -> DiscreteSchedule:
    betas = {"linear": linear_betas, "cosine": squaredcos_betas}[name]
    return schedule_from_betas(betas(steps, dtype=DOUBLE))


def test_kl_is_that_of_normal_distributions():
    mean, other, log, other_log = torch.randn(
        4, 100, generator=torch.Generator().manual_seed(1), dtype=DOUBLE
    )
    one = torch.distributions.Normal(mean, (log / 2).exp())
    two = torch.distributions.Normal(other, (other_log / 2).exp())
    expected = torch.distributions.kl_divergence(one, two)
    assert_close(normal_kl(mean, log, other, other_log), expected)


@pytest.mark.parametrize("std", [1e-3, 0.02, 0.5, 10.0])
def test_probabilities_of_all_values_sum_to_one(std):
    for mean in (-1.2, -1.0, 0.013, 0.7, 3.0):
        like = torch.full_like(VALUES, mean)
        log = discretized_log_likelihood(VALUES, like, torch.full_like(VALUES, math.log(std)))
        assert_close(log.exp().sum(), torch.ones((), dtype=DOUBLE))


def test_probabilities_are_nearly_those_of_the_normal_distribution():
    normal = torch.distributions.Normal(torch.tensor(0.2, dtype=DOUBLE), 0.1)
    edges = torch.cat((VALUES - 1 / 255, torch.ones(1, dtype=DOUBLE)))
    edges[0], edges[-1] = -torch.inf, torch.inf
    expected = normal.cdf(edges).diff()
    found = discretized_log_likelihood(
        VALUES, torch.full_like(VALUES, 0.2), torch.full_like(VALUES, math.log(0.1))
    ).exp()
    assert float((found.cumsum(0) - expected.cumsum(0)).abs().max()) < 3e-4


def test_a_mean_far_away_has_finite_numbers_and_gradients():
    mean = torch.tensor([-300.0, 0.5, 300.0]).repeat(3).requires_grad_()
    x = torch.tensor([-1.0, 0.0, 1.0]).repeat_interleave(3)
    log = torch.full_like(x, -9.0).requires_grad_()
    likelihood = discretized_log_likelihood(x, mean, log)
    likelihood.sum().backward()
    assert likelihood.isfinite().all() and mean.grad.isfinite().all() and log.grad.isfinite().all()
    wrong = (mean.detach().clamp(-1, 1) - x).abs() > 0.1
    assert (log.grad[wrong] > 0).all()  # a larger variance would have been better


# openai/guided-diffusion, commit aca3097, `training_losses` of a learned range of variances: `vb`
# of RESCALED_MSE and `_prior_bpd`, at timesteps 0, 1, 500, 999 of 1000, for `recorded_inputs`.
RECORDED = {
    "linear": (
        (1.12279794, 0.0946019762, 0.000360287579, 0.000659067439),
        (1.88493935e-05, 1.88753420e-05, 1.88510910e-05, 1.89090135e-05),
    ),
    "cosine": (
        (0.720431417, 0.0874041339, 0.000205324381, 32.2607344),
        (1.13432327e-09, 1.13588486e-09, 1.13442543e-09, 1.13791121e-09),
    ),
}


def recorded_inputs():
    """8-bit images, noise, and a network's six channels, (4, ..., 8, 8) float64."""
    n = torch.arange(768, dtype=DOUBLE).reshape(4, 3, 8, 8)
    x = (((1.3 * n.sin()).clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    eps = 1.4 * (1.7 * n).sin()
    return x, eps, eps + 0.3 * (2.3 * n).cos(), (0.9 * n).sin()


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_terms_are_those_of_the_published_code(name, dtype):
    schedule, timesteps = table(name), torch.tensor([0, 1, 500, 999])
    x, eps, output, values = (one.to(dtype) for one in recorded_inputs())
    level = schedule.logsnr_at(timesteps)
    alpha, sigma = (one.to(dtype)[:, None, None, None] for one in alpha_sigma(level))
    x_hat = (add_noise(x, level, eps) - sigma * output) / alpha
    bits = bound_terms(schedule, timesteps, x, Estimate(x_hat, (values + 1) / 2))
    expected, prior = (torch.tensor(one, dtype=dtype) for one in RECORDED[name])
    tolerance = 3e-5 if dtype == torch.float32 else 1e-7  # theirs is as far from itself
    assert_close(bits.flatten(1).mean(1), expected, rtol=tolerance, atol=0)
    assert_close(prior_term(schedule, x).to(dtype), prior, rtol=1e-4, atol=0)


def test_the_least_variance_is_that_of_the_posterior():
    schedule, x = table("cosine", 20), torch.zeros(20, 3, 2, 2, dtype=DOUBLE)
    every = torch.arange(20)
    exact = Estimate(x, torch.zeros_like(x))
    without = bound_terms(schedule, every, x, Estimate(x))
    assert_close(bound_terms(schedule, every, x, exact), without)
    assert_close(without[1:], torch.zeros_like(without[1:]))  # nothing between the two
    assert without[0].min() > 0  # an image of 8 bits is not known from Gaussian numbers


STD = 0.3


def gaussian_estimate(z, logsnr):
    """The exact estimate and its variance for images of independent numbers, N(0, STD^2)."""
    alpha, sigma = (one.to(z)[:, None, None, None] for one in alpha_sigma(logsnr))
    total = (alpha * STD) ** 2 + sigma**2
    return alpha * STD**2 / total * z, (sigma * STD) ** 2 / total


def gaussian_fraction(schedule, timestep, variance):
    """Where the variance of the exact reverse step lies, from products of alphas alone."""
    products = torch.sigmoid(schedule.table)
    now, before = products[timestep], products[timestep - 1]
    beta = 1 - now / before
    posterior = beta * (1 - before) / (1 - now)
    weight = beta * before.sqrt() / (1 - now)
    exact = posterior + weight**2 * variance
    return (exact / posterior).log() / (beta / posterior).log()


@pytest.mark.parametrize("timestep", [1, 4, 10, 19])
def test_the_fraction_learns_what_gaussian_data_have(timestep):
    schedule, noise = table("cosine", 20), GlobalNoise(torch.Generator().manual_seed(3))
    x = STD * noise.normal((1, 3, 256, 256)).double()
    steps = torch.tensor([timestep])
    level = schedule.logsnr_at(steps)
    x_hat, variance = gaussian_estimate(add_noise(x, level, noise.normal(x.shape)), level)
    fraction = torch.full((), 0.5, dtype=DOUBLE, requires_grad=True)
    settings = {
        "line_search_fn": "strong_wolfe",
        "tolerance_grad": 1e-12,
        "tolerance_change": 1e-12,
    }
    optimizer = torch.optim.LBFGS([fraction], max_iter=50, **settings)

    def loss():
        optimizer.zero_grad()
        bits = bound_terms(schedule, steps, x, Estimate(x_hat, fraction.expand_as(x))).mean()
        bits.backward()
        return bits

    optimizer.step(loss)
    expected = gaussian_fraction(schedule, timestep, variance.squeeze())
    assert 0 < float(expected) < 1
    assert_close(fraction.detach(), expected, rtol=0, atol=0.01)


def gaussian_model(schedule):
    """The exact denoiser, with the fraction that is best."""

    def denoise(z, logsnr):
        x_hat, variance = gaussian_estimate(z.double(), logsnr)
        timesteps = schedule.timestep(logsnr).round().long().clamp_min(1)[:, None, None, None]
        return Estimate(x_hat, gaussian_fraction(schedule, timesteps, variance).expand_as(z))

    return denoise


def eight_bit(x):
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def test_terms_sum_to_the_negative_log_likelihood():
    """Where the model is exact and steps are small, the bound is what the data cost."""
    schedule = schedule_from_betas(linear_betas(400, start=1e-4, end=0.05, dtype=DOUBLE))
    noise = GlobalNoise(torch.Generator().manual_seed(5))
    x = eight_bit(STD * noise.normal((2, 3, 32, 32)).double())

    denoise = gaussian_model(schedule)
    bound = variational_bound(denoise, x, noise, schedule=schedule)
    assert bound.terms.shape == (2, 400)
    assert_close(bound.total, bound.prior + bound.terms.sum(1))
    density = torch.distributions.Normal(torch.zeros((), dtype=DOUBLE), STD).log_prob(x)
    exact = -(density + math.log(2 / 255)).flatten(1).mean(1) / math.log(2)
    assert (bound.total > exact).all()
    assert_close(bound.total, exact, rtol=0.02, atol=0)


def test_a_few_timesteps_stand_for_all():
    schedule = table("linear", 300)
    timesteps, counts = some_timesteps(300, 40)
    assert timesteps.shape == (40, 10) and counts.tolist() == [1, 1, 2, 4, 8, 16, 32, 64, 128, 44]
    assert timesteps[:, 0].unique().tolist() == [0]
    assert timesteps[:, -1].min() >= 256 and timesteps[:, -1].unique().numel() == 40
    noise = GlobalNoise(torch.Generator().manual_seed(7))
    x = eight_bit(STD * noise.normal((40, 3, 16, 16)).double())
    denoise = gaussian_model(schedule)
    every = variational_bound(denoise, x[:4], noise, schedule=schedule).total.mean()
    settings = {"timesteps": timesteps, "counts": counts}
    some = variational_bound(denoise, x, noise, schedule=schedule, **settings).total.mean()
    assert_close(some, every, rtol=0.01, atol=0)


@pytest.mark.parametrize("steps", [2, 3, 4, 5, 1000, 1024, 1025])
def test_every_timestep_is_stood_for(steps):
    timesteps, counts = some_timesteps(steps, 2000)
    assert counts.sum() == steps and (counts > 0).all()
    assert timesteps.unique().tolist() == list(range(steps))
