"""What a stage learns by: the error of its network's output, the variational bound, or both.

A network that learns the variance of the reverse step is trained by both at once: the mean by the
error, and the variance alone by the bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.cascade.network_call import NetworkCall
from calotype.cascade.preconditioning import Preconditioning
from calotype.diffusion import (
    DiscreteSchedule,
    Estimate,
    NoiseSchedule,
    Parametrization,
    Weighting,
    add_noise,
    bound_terms,
    counted_where,
    prediction_loss,
)
from calotype.errors import UsageError


@dataclass(frozen=True)
class NoisedImages:
    """Images of a training step, and how they are noised.

    Args:
        x: clean, (B, 3, H, W) in [-1, 1].
        logsnr: noise levels, (B,).
        eps: standard normal noise, like `x`.
        pre: makes of them what the network sees.
        unknown: 1 where errors count, (B, 1, H, W); None = everywhere.
    """

    x: Tensor
    logsnr: Tensor
    eps: Tensor
    pre: Preconditioning
    unknown: Tensor | None = None


@dataclass(frozen=True)
class Objective:
    """The loss of a stage.

    Args:
        weighting: how errors of the output count by level; None = plain squared error.
        vlb_weight: lambda, what T times the bound's term counts (bits per dimension), of a network
            that learns its variance.
        bound_alone: nothing else counts, and the mean is trained by the bound, too.

    Reference: Nichol & Dhariwal 2021, Eq. 16, arXiv:2102.09672.
    """

    weighting: Weighting | None = None
    vlb_weight: float = 0.0
    bound_alone: bool = False

    def losses(
        self,
        images: NoisedImages,
        network: NetworkCall,
        parametrization: Parametrization,
        schedule: NoiseSchedule,
    ) -> Tensor:
        """The loss of each image, (B,).

        Raises:
            UsageError: the bound counts, and the schedule has no table.
        """
        pre, level = images.pre, images.pre.c_noise(images.logsnr)
        x = pre.normalize(images.x)
        z = add_noise(x, level, images.eps)
        output = network(z, level.to(x.device, torch.float32))

        def bound(prediction: Tensor) -> Tensor:
            x_hat = pre.denormalize(parametrization.to_x(prediction, z, level))
            return _bound(images, Estimate(x_hat, output.variance_fraction), schedule)

        if self.bound_alone:
            return bound(output.prediction)
        weighting = self.weighting
        if images.unknown is not None:
            weighting = counted_where(images.unknown, weighting)
        error = prediction_loss(
            output.prediction,
            x,
            level,
            eps=images.eps,
            parametrization=parametrization,
            weighting=weighting,
        )
        if output.variance_fraction is None or self.vlb_weight == 0:
            return error
        return error + self.vlb_weight * bound(output.prediction.detach())


PLAIN = Objective()
"""The mean squared error of the output, alike at all levels."""


def _bound(images: NoisedImages, estimate: Estimate, schedule: NoiseSchedule) -> Tensor:
    """T times the bound's term of each image, (B,) bits per dimension, where errors count."""
    if not isinstance(schedule, DiscreteSchedule):
        raise UsageError(
            "got a schedule without a table of timesteps; expected one where a variance is learned:"
            " set the stage's schedule to a discrete one"
        )
    timesteps = schedule.timestep(images.logsnr).round().long()
    bits = bound_terms(schedule, timesteps, images.x, estimate)
    if images.unknown is not None:
        fraction = images.unknown.mean((2, 3), keepdim=True)
        bits = bits * (images.unknown / torch.where(fraction > 0, fraction, 1.0))
    return schedule.steps * bits.flatten(1).mean(1)
