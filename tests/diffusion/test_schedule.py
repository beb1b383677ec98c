import math

import pytest
import torch

from calotype.diffusion import (
    CosineSchedule,
    LinearSchedule,
    NoiseSchedule,
    add_noise,
    alpha_sigma,
    broadcast_to_image,
    karras_levels,
    sampling_levels,
)
from calotype.errors import UsageError

SCHEDULES = [
    CosineSchedule(),
    CosineSchedule(logsnr_min=-15, logsnr_max=12, shift=2 * math.log(64 / 256)),
    LinearSchedule(),
    LinearSchedule(shift=-1.5),
]
close = torch.testing.assert_close


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_inverse_both_ways(schedule: NoiseSchedule) -> None:
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    logsnr = schedule.logsnr(t)
    assert logsnr.dtype == torch.float64
    assert (logsnr.diff() < 0).all()
    assert torch.isfinite(logsnr).all()
    close(schedule.time(logsnr), t, rtol=0, atol=1e-10)
    close(schedule.logsnr(schedule.time(logsnr)), logsnr, rtol=0, atol=2e-6)
    ends = schedule.time(torch.tensor([math.inf, 200.0, -200.0, -math.inf], dtype=torch.float64))
    assert ends.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("kind", [CosineSchedule, LinearSchedule])
def test_shift_moves_logsnr_by_the_constant(kind: type) -> None:
    t = torch.rand(100, dtype=torch.float64)
    close(kind(shift=-2.5).logsnr(t), kind().logsnr(t) - 2.5, rtol=0, atol=1e-12)


def test_cosine_is_the_cosine() -> None:
    t = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    alpha, _ = alpha_sigma(CosineSchedule().logsnr(t))
    close(alpha, torch.cos(math.pi * t / 2), rtol=0, atol=1e-4)
    ends = CosineSchedule().logsnr(torch.tensor([0.0, 1.0]))
    close(ends, torch.tensor([20.0, -20.0], dtype=torch.float64), rtol=0, atol=1e-9)


def test_linear_is_the_limit_of_a_thousand_steps() -> None:
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    discrete = torch.log1p(-betas).cumsum(0)
    steps = torch.arange(1, 1001, dtype=torch.float64)
    alpha, _ = alpha_sigma(LinearSchedule().logsnr(steps / 1000))
    # beta_i is beta(t) at t = (i - 1) / 999, and log(1 - beta) is -beta - beta^2 / 2.
    close(2 * alpha.log(), discrete, rtol=0.02, atol=2e-4)
    exact = -(0.1 * 0.5 + 19.9 * 0.5**2 / 2)
    alpha, _ = alpha_sigma(LinearSchedule().logsnr(torch.tensor(0.5)))
    assert abs(2 * math.log(alpha) - exact) < 1e-6
    assert abs(LinearSchedule().logsnr(torch.tensor(0.0)).item() - 20) < 1e-6


def test_scales_are_exact_at_the_ends_and_variance_preserving() -> None:
    logsnr = torch.tensor([-math.inf, -40.0, -20.0, 0.0, 20.0, 40.0, math.inf])
    alpha, sigma = alpha_sigma(logsnr)
    close(alpha**2 + sigma**2, torch.ones(7, dtype=torch.float64), rtol=0, atol=1e-15)
    assert (alpha[-1], sigma[-1], alpha[0], sigma[0]) == (1, 0, 0, 1)
    assert math.isclose(alpha[2], math.exp(-10), rel_tol=1e-8)


def test_add_noise_keeps_dtype_and_mixes_per_image() -> None:
    x, eps = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    logsnr = torch.tensor([math.inf, 0.0], dtype=torch.float64)
    z = add_noise(x, logsnr, eps)
    assert z.dtype == torch.float32
    assert torch.equal(z[0], x[0])
    close(z[1], (x[1] + eps[1]) / math.sqrt(2))
    assert add_noise(x.double(), logsnr, eps.double()).dtype == torch.float64


def test_broadcast() -> None:
    x = torch.zeros(5, 3, 2, 2)
    assert broadcast_to_image(torch.zeros(5, dtype=torch.float64), x).shape == (5, 1, 1, 1)
    assert broadcast_to_image(torch.tensor(1.0), x).shape == (1, 1, 1, 1)
    assert broadcast_to_image(torch.zeros(5, dtype=torch.float64), x).dtype == torch.float32


def test_sampling_levels() -> None:
    levels = sampling_levels(CosineSchedule(), 4)
    assert levels.shape == (5,)
    assert levels.dtype == torch.float64
    assert (levels.diff() > 0).all()
    assert levels[-1] == math.inf
    times = CosineSchedule().time(levels)
    close(times, torch.tensor([1, 0.75, 0.5, 0.25, 0], dtype=torch.float64), rtol=0, atol=1e-9)
    later = sampling_levels(CosineSchedule(), 3, start_time=0.6)
    assert math.isclose(CosineSchedule().time(later[0]), 0.6)
    assert sampling_levels(LinearSchedule(), 1).shape == (2,)


def test_karras_levels_follow_equation_5() -> None:
    levels = karras_levels(10, sigma_max=80, sigma_min=0.02, rho=7)
    i = torch.arange(10, dtype=torch.float64)
    ratio = (80 ** (1 / 7) + i / 9 * (0.02 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    close(levels[:-1], -2 * ratio.log())
    assert levels[-1] == math.inf
    assert levels.shape == (11,)
    assert (levels.diff() > 0).all()
    assert math.isclose(karras_levels(1)[0], -2 * math.log(80))


@pytest.mark.parametrize(
    "call",
    [
        lambda: sampling_levels(CosineSchedule(), 0),
        lambda: sampling_levels(CosineSchedule(), 4, start_time=0.0),
        lambda: sampling_levels(CosineSchedule(), 4, start_time=1.1),
        lambda: karras_levels(0),
        lambda: karras_levels(4, sigma_min=2, sigma_max=1),
        lambda: karras_levels(4, rho=0),
    ],
)
def test_illegal_grids(call) -> None:
    with pytest.raises(UsageError, match="expected"):
        call()
