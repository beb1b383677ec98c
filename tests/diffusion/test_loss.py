import math

import pytest
import torch
from torch import Tensor

from calotype.diffusion import (
    CosineSchedule,
    EpsPrediction,
    GlobalNoise,
    Parametrization,
    PerSampleNoise,
    VPrediction,
    XPrediction,
    add_noise,
    counted_where,
    denoising_loss,
    min_snr_weighting,
    normal_logsnr,
    sigmoid_weighting,
    simple_weighting,
    stratified_times,
)

LEVELS = torch.tensor([-9.0, -3.0, 0.0, 1.0, 4.0, 9.0], dtype=torch.float64)
close = torch.testing.assert_close


def loss_of_x_error(parametrization: Parametrization, weighting) -> Tensor:
    """Loss of a network that is wrong by 0.1 in x, everywhere."""
    generator = torch.Generator().manual_seed(1)
    x, eps = torch.randn(2, len(LEVELS), 3, 4, 4, generator=generator, dtype=torch.float64)
    z_true = add_noise(x, LEVELS, eps)

    def network(z: Tensor, logsnr: Tensor) -> Tensor:
        assert logsnr.dtype == torch.float32
        close(z, z_true)
        wrong = x + 0.1
        alpha, sigma = torch.sigmoid(LEVELS).sqrt(), torch.sigmoid(-LEVELS).sqrt()
        wrong_eps = (z - alpha[:, None, None, None] * wrong) / sigma[:, None, None, None]
        return parametrization.target(wrong, wrong_eps, LEVELS)

    return denoising_loss(
        network, x, LEVELS, eps=eps, parametrization=parametrization, weighting=weighting
    )


def test_simple_is_the_error_of_the_output() -> None:
    snr = LEVELS.exp()
    close(loss_of_x_error(XPrediction(), simple_weighting), torch.full_like(snr, 0.01))
    close(loss_of_x_error(EpsPrediction(), None), 0.01 * snr)
    close(loss_of_x_error(VPrediction(), simple_weighting), 0.01 * (snr + 1))


@pytest.mark.parametrize("parametrization", [EpsPrediction(), VPrediction(), XPrediction()])
def test_weightings_mean_the_same_for_every_parametrization(
    parametrization: Parametrization,
) -> None:
    snr = LEVELS.exp()
    close(loss_of_x_error(parametrization, min_snr_weighting(5.0)), 0.01 * snr.clamp(max=5))
    on_eps = 1 / (1 + torch.exp(LEVELS - 1.5))
    close(loss_of_x_error(parametrization, sigmoid_weighting(1.5)), 0.01 * snr * on_eps)


def test_perfect_network_has_no_loss_and_dtype_is_kept() -> None:
    x, eps = torch.randn(2, 4, 3, 2, 2)
    logsnr = CosineSchedule().logsnr(torch.rand(4))
    loss = denoising_loss(
        lambda z, level: eps.bfloat16().float(),
        x,
        logsnr,
        eps=eps,
        parametrization=EpsPrediction(),
    )
    assert loss.shape == (4,)
    assert loss.dtype == torch.float32
    assert loss.max() < 1e-4


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_times_are_stratified(batch_size: int) -> None:
    times = stratified_times(batch_size, GlobalNoise())
    assert times.dtype == torch.float64
    assert times.shape == (batch_size,)
    # One time in every interval of length 1/B.
    assert sorted((times * batch_size).floor().int().tolist()) == list(range(batch_size))
    assert stratified_times(3, PerSampleNoise([1, 2, 3])).shape == (3,)


def test_each_time_is_uniform() -> None:
    noise = GlobalNoise()
    first = torch.stack([stratified_times(4, noise)[0] for _ in range(4000)]).sort().values
    ideal = (torch.arange(4000) + 0.5) / 4000
    assert (first - ideal).abs().max() < 1.63 / math.sqrt(4000)  # Kolmogorov-Smirnov at 1 %


def test_normal_levels() -> None:
    logsnr = normal_logsnr(4096, GlobalNoise(), mean=-0.6, std=3.4)
    assert abs(logsnr.mean() + 0.6) < 0.01
    assert abs(logsnr.std() - 3.4) < 0.02
    inside = ((logsnr + 0.6).abs() < 3.4).double().mean()
    assert abs(inside - 0.6827) < 0.001

    class Zero(GlobalNoise):
        def uniform(self, shape) -> Tensor:
            return torch.zeros(shape)

    assert torch.isfinite(normal_logsnr(4, Zero(), mean=0, std=1)).all()


def test_errors_count_in_a_part_of_the_image_alone() -> None:
    where = torch.zeros(len(LEVELS), 1, 4, 4, dtype=torch.float64)
    where[:, :, 1:3, :3] = 1
    snr = LEVELS.exp()
    # The error is 0.1 everywhere: its mean over the part is that over all.
    close(loss_of_x_error(XPrediction(), counted_where(where)), torch.full_like(snr, 0.01))
    weighted = counted_where(where, min_snr_weighting(5.0))
    close(loss_of_x_error(VPrediction(), weighted), 0.01 * snr.clamp(max=5))
    x, eps = torch.randn(2, len(LEVELS), 3, 4, 4, dtype=torch.float64)

    def loss(beside: float, inside: float) -> Tensor:
        error = beside * (1 - where) + inside * where
        return denoising_loss(
            lambda z, logsnr: x + error,
            x,
            LEVELS,
            eps=eps,
            parametrization=XPrediction(),
            weighting=counted_where(where),
        )

    close(loss(7.0, 0.5), torch.full_like(snr, 0.25))
    nothing = counted_where(torch.zeros_like(where))
    assert not bool(loss_of_x_error(XPrediction(), nothing).any())
