import types

import pytest
import torch

from calotype.diffusion import (
    CosineSchedule,
    Estimate,
    PerSampleNoise,
    alpha_sigma,
    broadcast_to_image,
    linear_betas,
    schedule_from_betas,
    thresholding,
    variational_bound,
)
from calotype.diffusion.noise_marks import NOISE_RATIOS
from calotype.errors import UsageError
from calotype.tasks.validation import Probe, bits_per_dimension, errors_by_level

VARIANCE = 0.36


class GaussianStage:
    """Stands for a stage that knows its images: independent Gaussians of variance 0.36."""

    device = torch.device("cpu")

    def denoiser(self, cond):
        def denoise(z, logsnr):
            alpha, sigma = (broadcast_to_image(v, z) for v in alpha_sigma(logsnr))
            return Estimate(alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * z)

        return denoise


def test_errors_of_an_exact_denoiser_are_the_posterior_variances():
    x = torch.randn(48, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * VARIANCE**0.5
    errors = errors_by_level(GaussianStage(), Probe(x, None, ("",) * 48), None)
    assert list(errors) == ["20", "5", "2", "1", "0.5", "0.2", "0.1", "0.05"]
    for ratio, error in zip(NOISE_RATIOS, errors.values(), strict=True):
        # E (x_hat - x)^2 = v r^2 / (v + r^2) with r = sigma/alpha.
        expected = VARIANCE * ratio**2 / (VARIANCE + ratio**2)
        assert error == pytest.approx(expected, rel=0.03)


def test_noise_of_an_image_does_not_depend_on_the_number_of_images():
    x = torch.rand(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    seen = []

    class Recorder(GaussianStage):
        def denoiser(self, cond):
            def denoise(z, logsnr):
                seen.append(z[0, 0, 0, 0].item())
                return types.SimpleNamespace(x_hat=z)

            return denoise

    for count in (1, 20):
        probe = Probe(x[:count], None, ("",) * count)
        errors_by_level(Recorder(), probe, None, ratios=(1.0,))
    assert seen[0] == seen[1]


def test_bits_of_a_few_timesteps_are_those_of_all():
    stage = GaussianStage()
    stage.schedule = schedule_from_betas(linear_betas(200))
    x = 0.3 * torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    x = ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    bits = bits_per_dimension(stage, Probe(x, None, ("",) * 48), None)
    assert bits.shape == (48,)
    denoise = thresholding(None)(stage.denoiser(None))
    noise = PerSampleNoise(list(range(48)))
    exact = variational_bound(denoise, x, noise, schedule=stage.schedule).total
    assert float(bits.mean()) == pytest.approx(float(exact.mean()), rel=0.02)


def test_bits_want_a_table_of_timesteps():
    stage = GaussianStage()
    stage.schedule, stage.config = CosineSchedule(), types.SimpleNamespace(resolution=8)
    with pytest.raises(UsageError, match=r"^got the 8 stage, .*no table of timesteps; expected "):
        bits_per_dimension(stage, Probe(torch.zeros(1, 3, 4, 4), None, ("",)), None)
