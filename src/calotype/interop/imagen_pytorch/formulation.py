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
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from calotype.cascade.preconditioning import Preconditioning
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


PENALTIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": partial(F.mse_loss, reduction="none"),
    "l1": partial(F.l1_loss, reduction="none"),
    "huber": partial(F.smooth_l1_loss, reduction="none"),
}

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""`(z, time, self_cond) -> output`: all other conditioning is bound."""


@dataclass(frozen=True)
class Churn:
    """Noise added during sampling: from each level in a range back to a noisier one.

    Args:
        amount: S_churn; each step adds the fraction `amount / steps`, at most sqrt(2) - 1.
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
        training_levels: log-SNRs (B,) of a training batch of that size.
        parametrization: what the network predicts, of images divided by `data_std`.
        weighting: of training errors by level.
        step: the solver.
        data_std: spread of images.
        elucidated: the network gets ln(sigma) / 4 instead of the log-SNR, and answers -v.
        penalty: how errors count by size.
        churn: noise added during sampling.
    """

    levels: Tensor
    training_levels: Callable[[int, NoiseSource], Tensor]
    parametrization: Parametrization
    weighting: Weighting
    step: Step
    data_std: float = 1.0
    elucidated: bool = False
    penalty: Callable[[Tensor, Tensor], Tensor] = PENALTIES["l2"]
    churn: Churn | None = None

    @property
    def _preconditioning(self) -> Preconditioning:
        return Preconditioning(torch.zeros(()), torch.tensor(self.data_std))

    def estimate(
        self, network: Network, z: Tensor, logsnr: Tensor, self_cond: Tensor | None = None
    ) -> Tensor:
        """Clean images that the network sees in noisy ones, (B, C, H, W)."""
        known = self._preconditioning
        inner, c_noise = known.inputs(z, logsnr), known.c_noise(logsnr)
        output = self._answer(network, inner, logsnr, self_cond).to(z.dtype)
        return known.denormalize(self.parametrization.to_x(output, inner, c_noise))

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
        scaled, inner = self._preconditioning.normalize(x), self._preconditioning.c_noise(logsnr)
        output = self._answer(network, add_noise(scaled, inner, eps), logsnr, self_cond)
        target = self.parametrization.target(scaled, eps, inner)
        error = self.penalty(output.to(x.dtype), target).flatten(1).mean(1)
        return self.weighting(inner, self.parametrization).to(error) * error

    def _answer(
        self, network: Network, z: Tensor, logsnr: Tensor, self_cond: Tensor | None
    ) -> Tensor:
        time = -logsnr / 8 if self.elucidated else logsnr
        output = network(z, time.to(z.device, torch.float32), self_cond)
        return -output if self.elucidated else output


def churned_levels(levels: Tensor, churn: Churn, *, steps: int) -> Tensor:
    """The grid with a step back to more noise before every step from a level in the range.

    Reference: Karras et al. 2022, algorithm 2; the sampler's loop adds the noise.
    """
    fraction = min(churn.amount / steps, math.sqrt(2) - 1)
    if fraction <= 0:
        return levels
    grid = [levels[0]]
    for here, following in itertools.pairwise(levels):
        sigma = math.exp(-float(here) / 2)
        if following > here and churn.lowest <= sigma <= churn.highest:
            grid.append(here - 2 * math.log1p(fraction))
        grid.append(following)
    return torch.stack(grid)
