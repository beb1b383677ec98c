import pytest
import torch

from calotype.diffusion import (
    EpsPrediction,
    Parametrization,
    VPrediction,
    XPrediction,
    add_noise,
)

ALL = [EpsPrediction(), VPrediction(), XPrediction()]
LEVELS = torch.linspace(-14, 14, 29, dtype=torch.float64)
close = torch.testing.assert_close


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (len(LEVELS), 3, 4, 4)
    x = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    return x, torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("parametrization", ALL)
def test_target_gives_x_back(parametrization: Parametrization) -> None:
    x, eps = batch()
    z = add_noise(x, LEVELS, eps)
    target = parametrization.target(x, eps, LEVELS)
    close(parametrization.to_x(target, z, LEVELS), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("parametrization", ALL)
def test_eps_error_converts_errors(parametrization: Parametrization, implied_noise) -> None:
    x, eps = batch()
    z = add_noise(x, LEVELS, eps)
    error = torch.randn_like(x)
    output = parametrization.target(x, eps, LEVELS) + error
    eps_hat = implied_noise(parametrization.to_x(output, z, LEVELS), z, LEVELS)
    got = (eps_hat - eps).square().flatten(1).mean(1)
    expected = parametrization.eps_error(LEVELS) * error.square().flatten(1).mean(1)
    close(got, expected, rtol=1e-6, atol=1e-12)


def test_v_is_stable_in_float32_at_both_ends() -> None:
    x, eps = (v[:2].float() for v in batch())
    logsnr = torch.tensor([-20.0, 20.0])
    z = add_noise(x, logsnr, eps)
    v = VPrediction()
    close(v.to_x(v.target(x, eps, logsnr), z, logsnr), x, rtol=0, atol=1e-5)
