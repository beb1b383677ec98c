import math

import pytest
import torch
from torch import Tensor

from calotype.diffusion import (
    Denoiser,
    EpsPrediction,
    Estimate,
    GlobalNoise,
    Parametrization,
    VPrediction,
    XPrediction,
    denoising_steps,
    guide,
    guide_batched,
    heun_step,
    karras_levels,
    oscillating_weight,
    within_interval,
)
from calotype.errors import UsageError

close = torch.testing.assert_close
Z = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LOGSNR = torch.tensor([-4.0, 0.5, 3.0])


def constant(value: float, calls: list | None = None) -> Denoiser:
    def denoise(z: Tensor, logsnr: Tensor) -> Estimate:
        if calls is not None:
            calls.append(value)
        return Estimate(torch.full_like(z, value))

    return denoise


@pytest.mark.parametrize("parametrization", [EpsPrediction(), VPrediction(), XPrediction()])
@pytest.mark.parametrize("weight", [0.0, 0.7, 1.0, 1.35, 8.0])
def test_guiding_x_eps_or_v_is_the_same(
    parametrization: Parametrization, weight: float, implied_noise
) -> None:
    generator = torch.Generator().manual_seed(1)
    cond, uncond = torch.randn(2, 3, 3, 4, 4, generator=generator, dtype=torch.float64)
    mixed = weight * cond + (1 - weight) * uncond

    def predicting(output: Tensor) -> Denoiser:
        return lambda z, logsnr: Estimate(parametrization.to_x(output, z, logsnr))

    in_x = guide(predicting(cond), predicting(uncond), weight)(Z, LOGSNR).x_hat
    in_output = predicting(mixed)(Z, LOGSNR).x_hat
    close(in_x, in_output, rtol=1e-9, atol=1e-9)
    close(implied_noise(in_x, Z, LOGSNR), implied_noise(in_output, Z, LOGSNR), rtol=1e-9, atol=1e-9)


def test_weight_one_is_off_and_saves_the_second_call() -> None:
    calls: list[float] = []
    guided = guide(constant(0.3, calls), constant(-0.5, calls), 1.0)
    assert torch.equal(guided(Z, LOGSNR).x_hat, torch.full_like(Z, 0.3))
    guide(constant(0.3, calls), constant(-0.5, calls), torch.ones_like)(Z, LOGSNR)
    assert calls == [0.3, 0.3]
    zero = guide(constant(0.3), constant(-0.5), 0.0)
    assert torch.equal(zero(Z, LOGSNR).x_hat, torch.full_like(Z, -0.5))


def test_weight_as_a_function_of_the_level_is_per_image() -> None:
    guided = guide(constant(1.0), constant(0.0), lambda logsnr: logsnr + 5)
    close(guided(Z, LOGSNR).x_hat[:, 0, 0, 0], torch.tensor([1.0, 5.5, 8.0], dtype=torch.float64))


def test_batched_is_the_same() -> None:
    seen = []

    def pair(z: Tensor, logsnr: Tensor) -> Estimate:
        seen.append((z.shape, logsnr.shape))
        gain = torch.tensor([0.9] * 3 + [0.2] * 3, dtype=z.dtype)[:, None, None, None]
        fraction = torch.arange(6.0)[:, None, None, None].expand(z.shape)
        return Estimate(gain * z, fraction)

    def one(gain: float) -> Denoiser:
        return lambda z, logsnr: Estimate(gain * z)

    for weight in (1.0, 3.0, lambda logsnr: 2 + logsnr.sigmoid()):
        got = guide_batched(pair, weight, rescale=0.4)(Z, LOGSNR)
        close(got.x_hat, guide(one(0.9), one(0.2), weight, rescale=0.4)(Z, LOGSNR).x_hat)
        assert got.variance_fraction[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert seen[0] == ((6, 3, 4, 4), (6,))


def test_rescale_restores_the_spread() -> None:
    cond, uncond = torch.randn(2, 3, 3, 4, 4, dtype=torch.float64)
    both = [lambda z, logsnr, x=x: Estimate(x) for x in (cond, uncond)]
    plain = guide(*both, 6.0)(Z, LOGSNR).x_hat
    full = guide(*both, 6.0, rescale=1.0)(Z, LOGSNR).x_hat
    part = guide(*both, 6.0, rescale=0.7)(Z, LOGSNR).x_hat
    close(full.flatten(1).std(1), cond.flatten(1).std(1))
    close(part, 0.7 * full + 0.3 * plain)
    flat = guide(constant(0.5), constant(0.5), 2.0, rescale=1.0)(Z, LOGSNR).x_hat
    assert torch.isfinite(flat).all()
    with pytest.raises(UsageError, match="rescale"):
        guide(*both, 6.0, rescale=1.1)


def test_interval() -> None:
    calls: list[float] = []
    denoise = within_interval(
        constant(2.0, calls), constant(1.0, calls), logsnr_low=-1, logsnr_high=3
    )
    one = torch.ones(3)
    for level, value in [(-1.5, 1.0), (-1.0, 2.0), (3.0, 2.0), (3.1, 1.0)]:
        calls.clear()
        assert (denoise(Z, level * one).x_hat == value).all()
        assert calls == [value]
    assert denoise(Z, LOGSNR).x_hat[:, 0, 0, 0].tolist() == [1.0, 2.0, 2.0]
    with pytest.raises(UsageError, match="interval"):
        within_interval(constant(0), constant(0), logsnr_low=2, logsnr_high=1)


@pytest.mark.parametrize(
    ("constant_steps", "expected"), [(1, [9, 1, 9, 1, 9, 1]), (3, [9, 9, 9, 1, 9, 1])]
)
def test_oscillating_weight_alternates_step_by_step(constant_steps, expected) -> None:
    levels = karras_levels(6)
    weight = oscillating_weight(levels, high=9.0, low=1.0, constant_steps=constant_steps)
    seen: list[float] = []

    def recording(logsnr: Tensor) -> Tensor:
        seen.append(weight(logsnr)[0].item())
        return weight(logsnr)

    guided = guide(constant(0.1), constant(0.0), recording)
    list(denoising_steps(guided, Z.float(), levels, GlobalNoise()))
    assert seen[::2] == expected or seen == [v for v in expected for _ in range(1 + (v != 1))]
    assert weight(torch.tensor([100.0, -100.0])).tolist() == [expected[-1], 9.0]


def test_guided_gaussian_has_the_known_mean(gaussian) -> None:
    """Two Gaussians of one spread: guiding by w moves the mean to w*cond + (1-w)*uncond."""
    guided = guide(gaussian(0.2, 0.5), gaussian(-0.1, 0.5), 3.0)
    z = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    *_, state = denoising_steps(guided, z, karras_levels(40), GlobalNoise(), step=heun_step)
    assert math.isclose(state.z.mean(), 3 * 0.2 + 2 * 0.1, abs_tol=0.02)
    assert math.isclose(state.z.std(), 0.5, abs_tol=0.02)
