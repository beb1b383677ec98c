"""The training loss: sample a level, add noise, predict, weigh.

Level and noise are arguments, so the loss is deterministic; the distribution of
levels and the weights of errors are small functions.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from calotype.diffusion.discrete import DiscreteSchedule
from calotype.diffusion.parametrization import Parametrization
from calotype.diffusion.random import NoiseSource
from calotype.diffusion.schedule import NoiseSchedule, add_noise, float64
from calotype.errors import UsageError

Weighting = Callable[[Tensor, Parametrization], Tensor]
"""`(logsnr, parametrization) -> weight` of the squared error of the network's output, (B,), or
(B, 1, H, W) where pixels count differently."""


def denoising_loss(
    network: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    logsnr: Tensor,
    *,
    eps: Tensor,
    parametrization: Parametrization,
    weighting: Weighting | None = None,
) -> Tensor:
    """Return the loss of each image.

    Args:
        network: `(z, logsnr) -> output` like `x`, conditioning already bound.
        x: clean images, (B, 3, H, W).
        logsnr: noise levels, (B,).
        eps: standard normal noise, like `x`.
        parametrization: what the network predicts.
        weighting: how errors count; None weighs all levels alike.

    Returns:
        Weighted mean squared errors of the output, (B,), in the dtype of `x`.
    """
    output = network(add_noise(x, logsnr, eps), logsnr.to(x.device, torch.float32))
    return prediction_loss(
        output, x, logsnr, eps=eps, parametrization=parametrization, weighting=weighting
    )


def prediction_loss(
    output: Tensor,
    x: Tensor,
    logsnr: Tensor,
    *,
    eps: Tensor,
    parametrization: Parametrization,
    weighting: Weighting | None = None,
) -> Tensor:
    """Return the loss of what a network has answered; otherwise as `denoising_loss`."""
    error = output.to(x.dtype) - parametrization.target(x, eps, logsnr)
    weighting = simple_weighting if weighting is None else weighting
    weight = weighting(logsnr, parametrization).to(x)
    if weight.ndim == 1:
        return weight * error.square().flatten(1).mean(1)
    return (weight * error.square()).flatten(1).mean(1)


def simple_weighting(logsnr: Tensor, parametrization: Parametrization) -> Tensor:
    """Weigh all levels alike: the mean squared error of what the network predicts."""
    return torch.ones_like(float64(logsnr))


def counted_where(where: Tensor, weighting: Weighting | None = None) -> Weighting:
    """Count errors in a part of each image alone, `where` (B, 1, H, W) is 1; means are over it.

    An image of which nothing counts has no loss.
    """
    weighting = simple_weighting if weighting is None else weighting
    fraction = where.mean((2, 3), keepdim=True)
    weights = where / torch.where(fraction > 0, fraction, 1.0)

    def counted(logsnr: Tensor, parametrization: Parametrization) -> Tensor:
        return weighting(logsnr, parametrization).to(weights)[:, None, None, None] * weights

    return counted


def min_snr_weighting(max_snr: float = 5.0) -> Weighting:
    """Weigh the error of x by `min(SNR, max_snr)`, whatever the network predicts.

    Reference: Hang et al. 2023, arXiv:2303.09556.
    """

    def weighting(logsnr: Tensor, parametrization: Parametrization) -> Tensor:
        # On eps: min(SNR, max_snr) / SNR.
        on_eps = (max_snr * torch.exp(-float64(logsnr))).clamp(max=1)
        return on_eps * parametrization.eps_error(logsnr)

    return weighting


def sigmoid_weighting(bias: float = 0.0) -> Weighting:
    """Weigh the error of eps by `sigmoid(bias - logsnr)`, whatever the network predicts.

    A larger bias gives more weight to levels with little noise.
    Reference: Kingma & Gao 2023, arXiv:2303.00848; Hoogeboom et al. 2024, arXiv:2410.19324.
    """

    def weighting(logsnr: Tensor, parametrization: Parametrization) -> Tensor:
        return torch.sigmoid(bias - float64(logsnr)) * parametrization.eps_error(logsnr)

    return weighting


def stratified_times(batch_size: int, noise: NoiseSource) -> Tensor:
    """Sample times spread evenly over a batch: `(u + i/B) mod 1` with one common `u`.

    Returns:
        Times (B,) in [0, 1), float64 on the CPU, each uniform by itself.

    Reference: Kingma et al. 2021, arXiv:2107.00630.
    """
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}, expected at least 1: pass some images")
    offset = noise.uniform((batch_size,))[0].double()
    return (offset + torch.arange(batch_size, dtype=torch.float64) / batch_size) % 1


def stratified_levels(batch_size: int, noise: NoiseSource, schedule: NoiseSchedule) -> Tensor:
    """Levels of stratified times, (B,) float64 on the CPU; those of whole timesteps of a table."""
    times = stratified_times(batch_size, noise)
    if isinstance(schedule, DiscreteSchedule):
        return schedule.table[(times * schedule.steps).long()]
    return schedule.logsnr(times)


def normal_logsnr(batch_size: int, noise: NoiseSource, *, mean: float, std: float) -> Tensor:
    """Sample normally distributed levels, stratified over a batch.

    Karras et al. write `ln(sigma/alpha) ~ N(m, s^2)`; that is `mean = -2*m`, `std = 2*s` here.

    Returns:
        Levels (B,), float64 on the CPU.

    Reference: Karras et al. 2022, table 1, arXiv:2206.00364.
    """
    # Half a step of a float32 number keeps the quantile of 0 finite (5.3 standard deviations).
    t = stratified_times(batch_size, noise).clamp(2.0**-25, 1 - 2.0**-25)
    quantiles: Tensor = torch.special.ndtri(t)
    return mean + std * quantiles
