"""GLIDE's stages in the order of operations of its authors' code, to repeat their float32 numbers.

The formulas are those of `EpsPrediction` and `ddim_step`; only the order of operations differs, and
with it the last digits. Where little of the image is left an estimate multiplies them by up to
sigma / alpha, and a trajectory multiplies that: to repeat published numbers, round as they were
rounded. Coefficients are float64 until they meet an image.

Reference: Dhariwal & Nichol 2021, arXiv:2105.05233; their code, as recorded from GLIDE's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from calotype.cascade.stage import Stage
from calotype.cascade.timesteps import split_variance
from calotype.conditioning import Conditioning
from calotype.config.sampling import SamplingConfig
from calotype.diffusion import Denoiser, DiscreteSchedule, Estimate, Move, Step, broadcast_to_image
from calotype.diffusion.schedule import float64
from calotype.errors import UsageError


class ReferenceStage(Stage):
    """A stage of GLIDE that rounds as its authors' code; made by `of`.

    Weights lie in contiguous memory and attention is computed in separate products, in float32:
    other kernels sum in another order. It is slower, and its images differ by rounding alone.
    """

    @classmethod
    def of(cls, stage: Stage) -> ReferenceStage:
        """The stage with the network of `stage`, whose weights are moved in memory.

        Raises:
            UsageError: it is no stage of a table of timesteps whose network predicts eps.
        """
        with torch.device("meta"):
            found = cls(stage.config)
        config = stage.config
        if not isinstance(found.schedule, DiscreteSchedule) or config.parametrization != "eps":
            raise UsageError(
                f"got the {config.resolution} stage, which has no table or predicts "
                f"{config.parametrization}; expected a stage of GLIDE"
            )
        found.network = cast(Any, stage.network).to(memory_format=torch.contiguous_format)
        return found.train(stage.training)

    def untiled_denoiser(self, cond: Conditioning) -> Denoiser:
        """See `Stage.untiled_denoiser`."""
        schedule, network = cast(DiscreteSchedule, self.schedule), cast(Any, self.network)
        with sdpa_kernel(SDPBackend.MATH):
            bound = network.bind(cond)

        def denoise(z: Tensor, logsnr: Tensor) -> Estimate:
            timesteps = schedule.timestep(logsnr)
            with sdpa_kernel(SDPBackend.MATH):
                output = bound(z.contiguous(), timesteps.to(z.device, torch.float32))
            split = split_variance(output, self.config.network)
            x_hat = eps_to_x(split.prediction, z, schedule.logsnr_at(timesteps))
            return Estimate(x_hat, split.variance_fraction)

        return denoise

    def solver(self, sampling: SamplingConfig) -> Step:
        """See `Stage.solver`; levels that the grid rounded to float32 are the table's again."""
        step = ddim_step if sampling.sampler == "ddim" else super().solver(sampling)

        def exact(move: Move) -> Tensor:
            state = replace(move.state, logsnr=self._exact(move.state.logsnr))
            return step(replace(move, state=state, logsnr_next=self._exact(move.logsnr_next)))

        return exact

    def _exact(self, logsnr: Tensor) -> Tensor:
        schedule = cast(DiscreteSchedule, self.schedule)
        return logsnr if logsnr.isinf() else schedule.logsnr_at(schedule.timestep(logsnr))


def eps_to_x(eps: Tensor, z: Tensor, logsnr: Tensor) -> Tensor:
    """The estimate `sqrt(1/a)*z - sqrt(1/a - 1)*eps` with `a = alpha^2`; like `z`."""
    of_z, of_eps = _coefficients(logsnr)
    return broadcast_to_image(of_z, z) * z - broadcast_to_image(of_eps, z) * eps


def ddim_step(move: Move) -> Tensor:
    """DDIM by way of the noise that the thresholded estimate implies."""
    z, x_hat = move.state.z, move.state.estimate.x_hat
    of_z, of_eps = (value.to(z.dtype) for value in _coefficients(move.state.logsnr))
    eps = (of_z * z - x_hat) / of_eps
    alpha2_next = torch.sigmoid(move.logsnr_next).to(z.dtype)
    return x_hat * alpha2_next.sqrt() + (1 - alpha2_next).sqrt() * eps


def _coefficients(logsnr: Tensor) -> tuple[Tensor, Tensor]:
    alpha2 = torch.sigmoid(float64(logsnr))
    return (1 / alpha2).sqrt(), (1 / alpha2 - 1).sqrt()
