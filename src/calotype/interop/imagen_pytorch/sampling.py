"""Drawing with one stage: a network bound to what it is told, and this library's sampler."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calotype.cascade.edit import KeepKnown
from calotype.diffusion import (
    Denoiser,
    Estimate,
    NoiseSource,
    SamplerState,
    denoising_steps,
    resampling_levels,
    thresholding,
)
from calotype.errors import UsageError
from calotype.interop.imagen_pytorch.formulation import Formulation, Network, churned_levels
from calotype.interop.imagen_pytorch.guidance import Guidance
from calotype.interop.imagen_pytorch.inputs import TextState, UnetInputs
from calotype.interop.imagen_pytorch.unet import Unet

Watch = Callable[[Iterable[SamplerState], int], Iterable[SamplerState]]
"""Passes states through, and shows how far it is of so many."""


@dataclass(frozen=True)
class Drawing:
    """What one stage shall draw.

    Args:
        shape: (B, C, H, W).
        inputs: what the network is told.
        null_text: the null caption, for guidance; None = no text.
        guidance: its weight.
        percentile: of dynamic thresholding; None = clip.
        start: clean images to start from, [-1, 1]; None = pure noise.
        skip: first steps left out.
        known: images to keep where `mask`, (B, 1, H, W) bool, is True.
        mask: see `known`.
        repeats: how often each step is walked while keeping (RePaint).
    """

    shape: tuple[int, ...]
    inputs: UnetInputs
    null_text: TextState | None
    guidance: Guidance
    percentile: float | None
    start: Tensor | None = None
    skip: int = 0
    known: Tensor | None = None
    mask: Tensor | None = None
    repeats: int = 1


class ScaledNoise:
    """A source whose normal numbers have another standard deviation."""

    def __init__(self, source: NoiseSource, scale: float) -> None:
        self._source = source
        self._scale = scale

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Normal numbers of standard deviation `scale`."""
        return self._source.normal(shape) * self._scale

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """As the source."""
        return self._source.uniform(shape)


def draw_stage(
    unet: Unet, formulation: Formulation, drawing: Drawing, noise: NoiseSource, *, watch: Watch
) -> Tensor:
    """Draw images, (B, C, H, W) in [-1, 1]."""
    grid = grid_of(formulation, drawing)
    denoise = _denoiser(unet, formulation, drawing)
    eps = noise.normal(drawing.shape).to(next(unet.parameters()).device)
    z = eps
    if drawing.start is not None:
        first = grid[0].float().expand(len(eps)).to(eps.device)
        z = formulation.noised(drawing.start.to(eps), first, eps)
    inner = noise
    if formulation.churn is not None:
        inner = ScaledNoise(noise, formulation.churn.noise_scale)
    for state in watch(denoising_steps(denoise, z, grid, inner, step=formulation.step), len(grid)):
        z = state.z
    return z.clamp(-1, 1)


def grid_of(formulation: Formulation, drawing: Drawing) -> Tensor:
    """The levels walked: some left out, repeated, churned."""
    steps = len(formulation.levels) - 1
    if not 0 <= drawing.skip < steps:
        raise UsageError(f"got skip_steps={drawing.skip}; expected 0 to {steps - 1}")
    grid = formulation.levels[drawing.skip :]
    if drawing.known is not None and drawing.repeats > 1:
        grid = resampling_levels(grid, jump=1, repeats=drawing.repeats)
    if formulation.churn is not None:
        grid = churned_levels(grid, formulation.churn, steps=steps)
    return grid


def bound_network(unet: Unet, drawing: Drawing) -> Network:
    """The network told everything, guided; text is encoded already."""
    inputs, null = drawing.inputs, drawing.null_text
    if drawing.guidance.off or null is None:

        def alone(z: Tensor, time: Tensor, self_cond: Tensor | None) -> Tensor:
            return unet.predict(z, time, inputs, self_cond=self_cond)

        return alone
    both = inputs.doubled(null)

    def guided(z: Tensor, time: Tensor, self_cond: Tensor | None) -> Tensor:
        again = None if self_cond is None else torch.cat((self_cond, self_cond))
        output = unet.predict(torch.cat((z, z)), torch.cat((time, time)), both, self_cond=again)
        return drawing.guidance(*output.chunk(2))

    return guided


def _denoiser(unet: Unet, formulation: Formulation, drawing: Drawing) -> Denoiser:
    network = bound_network(unet, drawing)
    last: list[Tensor] = []  # for networks that are told their last estimate

    def plain(z: Tensor, logsnr: Tensor) -> Estimate:
        told = last[0] if last else None
        return Estimate(formulation.estimate(network, z, logsnr, told))

    denoise = thresholding(drawing.percentile)(plain)
    if drawing.known is not None and drawing.mask is not None:
        denoise = KeepKnown(drawing.known, drawing.mask)(denoise)
    if not unet.self_cond:
        return denoise

    def remembering(z: Tensor, logsnr: Tensor) -> Estimate:
        estimate = denoise(z, logsnr)
        last[:] = [estimate.x_hat]
        return replace(estimate)

    return remembering
