"""Editing images: what to keep and what to start from, as data (`StageEdit`) for the stages.

In-painting replaces the estimate by the known image where it is known; image-to-image starts
from an image with noise added. Neither needs a sampler of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Unpack

from torch import Tensor
from torch.nn import functional

from calotype.cascade.pixels import Images, as_images, as_mask
from calotype.cascade.plan import SampleOptions, SamplePlan
from calotype.cascade.results import CascadeSample, drain
from calotype.cascade.stage import Stage
from calotype.cascade.stage_edit import Inversion, KnownPixels, StageEdit
from calotype.diffusion import resampling_levels
from calotype.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from calotype.cascade.cascade import Cascade


@dataclass(frozen=True)
class Resampling:
    """Take every piece of `jump` steps `repeats` times; repeats 1 = off.

    Reference: RePaint, Lugmayr et al. 2022, section 4.2, arXiv:2201.09865.
    """

    jump: int = 4
    repeats: int = 1


@dataclass(frozen=True, kw_only=True)
class EditSettings:
    """How an image is edited.

    Args:
        mask: True = keep; a tensor (B, 1, H, W) or (1, 1, H, W) of bool, or (H, W) as an array or
            an image of Pillow's of mode "1"; None = nothing is kept.
        strength: how much is made anew, in (0, 1]: the time at which every stage starts from the
            image with noise added (SDEdit, Meng et al. 2021, arXiv:2108.01073); None and 1 = from
            noise, or from the draft.
        resampling: RePaint's repeated steps, for seams that fit better; None = off.
        blind: withhold what is known from the draft, and from networks trained to see it.
        invert: start every stage from the image's own noise, up to the time `strength`, which
            DDIM finds and samples with: the image's own caption gives it back, and another keeps
            what it does not speak of. Guidance away from the source's caption if no negative
            captions are given (Miyake et al. 2023, arXiv:2305.16807).
        refine: corrections of each step of the inversion; 0 = plain.
        source_caption: what the image shows; "" where nobody knows.
    """

    mask: Tensor | np.ndarray | Image | None = None
    strength: float | None = None
    resampling: Resampling | None = None
    blind: bool = False
    invert: bool = False
    refine: int = 0
    source_caption: str = ""

    def __post_init__(self) -> None:
        if self.strength is not None and not 0 < self.strength <= 1:
            raise UsageError(f"got strength={self.strength}; expected a number in (0, 1]")
        chosen = self.resampling
        if chosen is not None and (chosen.jump < 1 or chosen.repeats < 1):
            raise UsageError(f"got {chosen}; expected jump and repeats of at least 1")
        if self.refine < 0 or (self.refine > 0 and not self.invert):
            raise UsageError(f"got refine={self.refine}; expected 0, or above it with invert=True")
        if self.invert and chosen is not None:
            raise UsageError(
                "got invert with resampling, which puts other noise in the place of the image's "
                "own; expected one of them"
            )


def plan_edit(
    cascade: Cascade,
    image: Images,
    settings: EditSettings,
    captions: Sequence[str],
    *,
    seeds: Sequence[int],
    **options: Unpack[SampleOptions],
) -> SamplePlan:
    """What an edit would make, checked; nothing is computed.

    Args:
        cascade: what samples.
        image: of the last stage's size, one a caption or one for all; a tensor
            (B, 3, H, W), arrays, images of Pillow's or paths: see `as_images`.
        settings: what is kept, and where stages start.
        captions: one an image.
        seeds: one an image.
        **options: see `SampleOptions`.

    Raises:
        UsageError: something does not fit.
    """
    count = len(captions)
    whole = _expanded("image", as_images(image), count)
    options, source_captions = _with_size(options, whole), (settings.source_caption,) * count
    if settings.invert:
        options = _inverting(cascade, options, source_captions)
    keep = None
    if settings.mask is not None:
        keep = _expanded("mask", as_mask(settings.mask), count)
        KnownPixels(whole, keep)  # both fit each other, and if not, that is said now
    edits: dict[int, StageEdit | None] = {}
    for stage in _sampled_stages(cascade, options):
        size = _stage_size(cascade, stage, options)
        small, edit = _resized(whole, size), StageEdit(blind=settings.blind)
        if keep is not None:
            # A pixel of a small image is known if all it covers is.
            edit = replace(edit, known=KnownPixels(small, _resized(keep.float(), size) > 1 - 1e-4))
        strength = 1.0 if settings.strength is None else settings.strength
        if settings.invert or strength < 1:
            edit = replace(edit, start=small, start_time=strength)
        if settings.invert:
            edit = replace(edit, inversion=Inversion(source_captions, settings.refine))
        if settings.resampling is not None:
            jump, repeats = settings.resampling.jump, settings.resampling.repeats
            edit = replace(edit, regrid=partial(resampling_levels, jump=jump, repeats=repeats))
        edits[stage.config.resolution] = edit
    options["edits"] = edits
    return cascade.plan(captions, seeds=seeds, **options)


def inpaint(
    cascade: Cascade,
    image: Images,
    mask: Tensor | np.ndarray | Image,
    captions: Sequence[str],
    *,
    seeds: Sequence[int],
    resampling: Resampling | None = None,
    **options: Unpack[SampleOptions],
) -> CascadeSample:
    """Fill an image in; at every stage the known part stays as it is.

    Arguments are those of `plan_edit` and `EditSettings`.

    Raises:
        UsageError: something does not fit; nothing has been computed then.
    """
    settings = EditSettings(mask=mask, resampling=resampling)
    plan = plan_edit(cascade, image, settings, captions, seeds=seeds, **options)
    return drain(cascade.generate(plan))


def image_to_image(
    cascade: Cascade,
    image: Images,
    captions: Sequence[str],
    *,
    strength: float,
    seeds: Sequence[int],
    **options: Unpack[SampleOptions],
) -> CascadeSample:
    """Sample starting from an image with noise added, at every stage.

    Arguments are those of `plan_edit` and `EditSettings`.

    Raises:
        UsageError: something does not fit; nothing has been computed then.
    """
    settings = EditSettings(strength=strength)
    plan = plan_edit(cascade, image, settings, captions, seeds=seeds, **options)
    return drain(cascade.generate(plan))


def _expanded(what: str, x: Tensor, count: int) -> Tensor:
    if x.ndim != 4:
        raise UsageError(f"got {what} of shape {tuple(x.shape)}; expected (B, C, H, W)")
    if len(x) not in (1, count):
        raise UsageError(f"got {len(x)} rows of {what} for {count} captions; expected 1 or {count}")
    return x.expand(count, -1, -1, -1)


def _with_size(options: SampleOptions, image: Tensor) -> SampleOptions:
    size = (int(image.shape[2]), int(image.shape[3]))
    given = options.get("size")
    if given is not None and tuple(given) != size:
        raise UsageError(f"got size {given} with an image of {size}; expected the image's size")
    if options.get("edits") is not None:
        raise UsageError("got edits beside an image to edit; expected one of them")
    return {**options, "size": size}


def _inverting(
    cascade: Cascade, options: SampleOptions, source_captions: Sequence[str]
) -> SampleOptions:
    """Sampling that takes the steps of an inversion: by ddim, and guided away from the source."""
    if options.get("negative_captions") is None and any(source_captions):
        options = {**options, "negative_captions": source_captions}
    given = options.get("sampling")
    if given is not None and not isinstance(given, Mapping):
        return options
    stages = [stage.config for stage in _sampled_stages(cascade, options)]
    sampling = {stage.resolution: replace(stage.sampling, sampler="ddim") for stage in stages}
    return {**options, "sampling": {**sampling, **({} if given is None else given)}}


def _sampled_stages(cascade: Cascade, options: SampleOptions) -> Sequence[Stage]:
    resolutions = [stage.config.resolution for stage in cascade.stages]
    stop_at = options.get("stop_at")
    return cascade.stages[: resolutions.index(stop_at) + 1 if stop_at in resolutions else None]


def _stage_size(cascade: Cascade, stage: Stage, options: SampleOptions) -> tuple[int, int]:
    last = _sampled_stages(cascade, options)[-1].config.resolution
    size = options.get("size")
    assert size is not None
    height, width = (max(1, side * stage.config.resolution // last) for side in size)
    return height, width


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Exact area averages, as the low-resolution images of training are made."""
    return functional.adaptive_avg_pool2d(x, size)
