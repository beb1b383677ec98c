"""The noise of an image itself, at every stage: where an inverted edit starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from torch.nn import functional

from calotype.cascade.stage import Stage
from calotype.cascade.stage_edit import StageEdit
from calotype.conditioning import Conditioning
from calotype.config.sampling import SamplingConfig
from calotype.diffusion import NoiseSource, SamplerState, inversion_steps


class Sample(Protocol):
    """`Stage.steps`, of which all but the edit is given."""

    def __call__(self, *, edit: StageEdit | None) -> Iterator[SamplerState]:
        """The states."""


def source_captions(edit: StageEdit | None) -> tuple[str, ...]:
    """What the images show that an edit inverts; () = it inverts none."""
    return () if edit is None or edit.inversion is None else edit.inversion.captions


def count_steps(stage: Stage, edit: StageEdit | None, sampling: SamplingConfig) -> int:
    """How many steps a stage takes, those of an inversion among them."""
    steps = len(stage.levels(sampling, edit)) - 1
    return 2 * steps if source_captions(edit) else steps


def inverted_first(
    stage: Stage,
    edit: StageEdit | None,
    told: Conditioning,
    noise: NoiseSource,
    *,
    sampling: SamplingConfig,
    sample: Sample,
) -> Iterator[SamplerState]:
    """The states of sampling, after those of the inversion that an edit may ask for.

    The denoiser of an inversion is conditioned on the start's own captions, without guidance, and
    on its own low-resolution image, not on what the stage before makes of the new captions.

    Args:
        stage: the stage that samples.
        edit: its edit, if any.
        told: the inversion's captions, and classes.
        noise: as the stage samples with: the noise of `aug_level` is the same.
        sampling: as the stage samples.
        sample: samples with the edit it is given.
    """
    if edit is None or edit.inversion is None:
        yield from sample(edit=edit)
        return
    for found in _inversion(stage, edit, told, noise, sampling):
        yield found
    for state in sample(edit=replace(edit, noised=found.z)):  # there is a level at least
        yield replace(state, index=found.index + 1 + state.index)


def _inversion(
    stage: Stage, edit: StageEdit, told: Conditioning, noise: NoiseSource, sampling: SamplingConfig
) -> Iterator[SamplerState]:
    start, inversion = edit.start, edit.inversion
    assert start is not None and inversion is not None
    start = start.to(stage.device, stage.image_dtype())
    cond = told
    if (resolution := stage.config.lowres_resolution) is not None:
        size = (int(start.shape[2]), int(start.shape[3]))
        height, width = (side * resolution // stage.config.resolution for side in size)
        lowres = functional.adaptive_avg_pool2d(start, (height, width))
        aug_level = sampling.aug_level
        cond = stage.lowres_condition(
            lowres, told.text, size=size, aug_level=aug_level, noise=noise
        )
        cond = replace(cond, classes=told.classes)
    denoise = stage.denoiser(stage.with_draft(cond))
    levels = stage.levels(sampling, edit)
    dtype = stage.image_dtype()
    return inversion_steps(denoise, start, levels, refine=inversion.refine, level_dtype=dtype)
