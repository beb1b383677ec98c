"""How a stage diffuses: which levels, what the network predicts, how errors count.

`Imagen` and `ElucidatedImagen` differ in nothing else. The second is the first with v-prediction
of images scaled to unit variance, up to a sign: Karras et al. 2022, section 5 and table 1,
arXiv:2206.00364.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from calotype.diffusion import (
    CosineSchedule,
    EpsPrediction,
    LinearSchedule,
    NoiseSchedule,
    NoiseSource,
    Parametrization,
    Step,
    VPrediction,
    Weighting,
    XPrediction,
    add_noise,
    alpha_sigma,
    ancestral_step,
    broadcast_to_image,
    heun_step,
    karras_levels,
    min_snr_weighting,
    normal_logsnr,
    sampling_levels,
    simple_weighting,
    stratified_times,
)

# The ends of that package's schedules at time 0: cosine with an offset of 0.008, linear of 1e-4.
# Its networks have never seen less noise.
SCHEDULES: dict[str, NoiseSchedule] = {
    "cosine": CosineSchedule(logsnr_max=-2 * math.log(math.tan(0.008 / 1.008 * math.pi / 2))),
    "linear": LinearSchedule(beta_min=0.0, beta_max=20.0, logsnr_max=-math.log(math.expm1(1e-4))),
}
OBJECTIVES: dict[str, Parametrization] = {
    "noise": EpsPrediction(),
    "x_start": XPrediction(),
    "v": VPrediction(),
}


def _square(output: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(output, target, reduction="none")


def _absolute(output: Tensor, target: Tensor) -> Tensor:
    return F.l1_loss(output, target, reduction="none")


def _huber(output: Tensor, target: Tensor) -> Tensor:
    return F.smooth_l1_loss(output, target, reduction="none")


PENALTIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": _square,
    "l1": _absolute,
    "huber": _huber,
}

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""`(z, time, self_cond) -> output`: everything else the network is told is bound."""


@dataclass(frozen=True)
class Churn:
    """Noise added during sampling: from each level in a range back to a noisier one.

    Args:
        amount: S_churn; per step its share `amount / steps` is added, at most sqrt(2) - 1.
        lowest: S_tmin, as sigma / alpha.
        highest: S_tmax, as sigma / alpha.
        noise_scale: S_noise, the standard deviation of that noise.
    """

    amount: float
    lowest: float
    highest: float
    noise_scale: float


@dataclass(frozen=True)
class Formulation:
    """One stage's diffusion.

    Args:
        levels: sampling grid (N+1,) of log-SNR, float64.
        draw_levels: log-SNRs of a training batch, (B,).
        parametrization: what the network predicts, of images divided by `data_std`.
        weighting: of training errors by level.
        step: the solver.
        data_std: spread of images.
        elucidated: the network is told ln(sigma) / 4 instead of the log-SNR, and answers -v.
        penalty: how errors count by size.
        churn: noise added during sampling.
    """

    levels: Tensor
    draw_levels: Callable[[int, NoiseSource], Tensor]
    parametrization: Parametrization
    weighting: Weighting
    step: Step
    data_std: float = 1.0
    elucidated: bool = False
    penalty: Callable[[Tensor, Tensor], Tensor] = _square
    churn: Churn | None = None

    def estimate(
        self, network: Network, z: Tensor, logsnr: Tensor, self_cond: Tensor | None = None
    ) -> Tensor:
        """Clean images that the network sees in noisy ones, (B, C, H, W)."""
        alpha, sigma = alpha_sigma(logsnr)
        scale = (alpha.square() * self.data_std**2 + sigma.square()).rsqrt()
        inner = z * broadcast_to_image(scale, z)
        output = self._answer(network, inner, logsnr, self_cond).to(z.dtype)
        return self.data_std * self.parametrization.to_x(output, inner, self._inner(logsnr))

    def loss(
        self,
        network: Network,
        x: Tensor,
        logsnr: Tensor,
        *,
        eps: Tensor,
        self_cond: Tensor | None = None,
    ) -> Tensor:
        """Training loss of each image, (B,); everything random is an argument.

        For `l2` this is `calotype.diffusion.denoising_loss`; the others only count errors anew.
        """
        inner = self._inner(logsnr)
        scaled = x / self.data_std
        output = self._answer(network, add_noise(scaled, inner, eps), logsnr, self_cond)
        target = self.parametrization.target(scaled, eps, inner)
        error = self.penalty(output.to(x.dtype), target).flatten(1).mean(1)
        return self.weighting(inner, self.parametrization).to(error) * error

    def noised(self, x: Tensor, logsnr: Tensor, eps: Tensor) -> Tensor:
        """Clean images at levels (B,)."""
        return add_noise(x, logsnr, eps)

    def _inner(self, logsnr: Tensor) -> Tensor:
        return logsnr + 2 * math.log(self.data_std)

    def _answer(
        self, network: Network, z: Tensor, logsnr: Tensor, self_cond: Tensor | None
    ) -> Tensor:
        time = -logsnr / 8 if self.elucidated else logsnr
        output = network(z, time.to(z.device, torch.float32), self_cond)
        return -output if self.elucidated else output


def imagen_formulation(
    *,
    schedule: str,
    timesteps: int,
    objective: str,
    loss_type: str,
    min_snr_gamma: float | None,
) -> Formulation:
    """The diffusion of one stage of `Imagen`.

    Args:
        schedule: a key of `SCHEDULES`.
        timesteps: sampling steps.
        objective: a key of `OBJECTIVES`.
        loss_type: a key of `PENALTIES`.
        min_snr_gamma: the largest SNR that counts; None = the error of eps counts alike everywhere.
    """
    chosen = SCHEDULES[schedule]

    def draw(count: int, noise: NoiseSource) -> Tensor:
        return chosen.logsnr(stratified_times(count, noise))

    with torch.device("cpu"):  # levels are numbers, also of a cascade made on the meta device
        levels = sampling_levels(chosen, timesteps)
    return Formulation(
        levels=levels,
        draw_levels=draw,
        parametrization=OBJECTIVES[objective],
        weighting=min_snr_weighting(math.inf if min_snr_gamma is None else min_snr_gamma),
        step=ancestral_step(0.0),
        penalty=PENALTIES[loss_type],
    )


def elucidated_formulation(
    *,
    steps: int,
    sigma_range: tuple[float, float],
    rho: float,
    data_std: float,
    log_normal: tuple[float, float],
    churn: Churn,
) -> Formulation:
    """The diffusion of one stage of `ElucidatedImagen`.

    Args:
        steps: sampling steps.
        sigma_range: sigma_min and sigma_max.
        rho: of the grid.
        data_std: sigma_data.
        log_normal: P_mean and P_std of ln(sigma) in training.
        churn: noise added during sampling.
    """
    mean, std = log_normal

    def draw(count: int, noise: NoiseSource) -> Tensor:
        return normal_logsnr(count, noise, mean=-2 * mean, std=2 * std)

    low, high = sigma_range
    with torch.device("cpu"):
        levels = karras_levels(steps, sigma_max=high, sigma_min=low, rho=rho)
    return Formulation(
        levels=levels,
        draw_levels=draw,
        parametrization=VPrediction(),
        weighting=simple_weighting,
        step=heun_step,
        data_std=data_std,
        elucidated=True,
        churn=churn,
    )


def churned_levels(levels: Tensor, churn: Churn, *, steps: int) -> Tensor:
    """The grid with a step back to more noise before every step from a level in the range.

    Reference: Karras et al. 2022, algorithm 2; the sampler's loop adds the noise.
    """
    share = min(churn.amount / steps, math.sqrt(2) - 1)
    if share <= 0:
        return levels
    grid = [levels[0]]
    for here, following in itertools.pairwise(levels):
        sigma = math.exp(-float(here) / 2)
        if following > here and churn.lowest <= sigma <= churn.highest:
            grid.append(here - 2 * math.log1p(share))
        grid.append(following)
    return torch.stack(grid)
