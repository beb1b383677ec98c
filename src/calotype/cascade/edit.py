"""Editing images: what to keep and what to start from, as data (`StageEdit`) for the stages.

Inpainting replaces the estimate by the known image where it is known; image-to-image starts
from an image with noise added. Neither needs a sampler of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Unpack

import torch
from torch import Tensor
from torch.nn import functional

from calotype.cascade.pixels import Images, as_images, as_mask
from calotype.cascade.plan import SampleOptions, SamplePlan
from calotype.cascade.results import CascadeSample, drain
from calotype.cascade.stage import Stage, StageEdit
from calotype.diffusion import Denoiser, Estimate, resampling_levels
from calotype.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from calotype.cascade.cascade import Cascade


@dataclass(frozen=True)
class KeepKnown:
    """A transform of denoisers that puts the known pixels into every estimate.

    Args:
        known: clean images, (B, 3, H, W) in [-1, 1].
        mask: True = keep the known pixel, (B, 1, H, W) bool.

    Raises:
        UsageError: the shapes or types do not fit.
    """

    known: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        known, mask = self.known, self.mask
        expected = (known.shape[0], 1, *known.shape[2:])
        if known.ndim != 4 or tuple(mask.shape) != expected or mask.dtype != torch.bool:
            raise UsageError(
                f"got known {tuple(known.shape)} and a mask {tuple(mask.shape)} of {mask.dtype}; "
                "expected (B, 3, H, W) and (B, 1, H, W) of bool"
            )

    def __call__(self, denoise: Denoiser) -> Denoiser:
        """The denoiser that never forgets what is known."""

        def keeping(z: Tensor, logsnr: Tensor) -> Estimate:
            estimate = denoise(z, logsnr)
            known, mask = self.known.to(estimate.x_hat), self.mask.to(estimate.x_hat.device)
            return replace(estimate, x_hat=torch.where(mask, known, estimate.x_hat))

        return keeping

    def rows(self, rows: slice) -> KeepKnown:
        """The same for some images of the batch."""
        return KeepKnown(self.known[rows], self.mask[rows])


@dataclass(frozen=True)
class Resampling:
    """Take every piece of `jump` steps `repeats` times; repeats 1 = off.

    Reference: RePaint, Lugmayr et al. 2022, section 4.2, arXiv:2201.09865.
    """

    jump: int = 4
    repeats: int = 1


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

    Args:
        cascade: what samples.
        image: of the last stage's size, one a caption or one for all; a tensor
            (B, 3, H, W), arrays, images of Pillow's or paths: see `as_images`.
        mask: True = keep; a tensor (B, 1, H, W) or (1, 1, H, W) of bool, or (H, W) as an array or
            an image of Pillow's of mode "1".
        captions: one an image.
        seeds: one an image.
        resampling: RePaint's repeated steps, for seams that fit better; None = off.
        **options: see `SampleOptions`.

    Raises:
        UsageError: something does not fit; nothing has been computed then.
    """
    where = (cascade, image, mask)
    plan = plan_inpaint(*where, captions, seeds=seeds, resampling=resampling, **options)
    return drain(cascade.generate(plan))


def plan_inpaint(
    cascade: Cascade,
    image: Images,
    mask: Tensor | np.ndarray | Image,
    captions: Sequence[str],
    *,
    seeds: Sequence[int],
    resampling: Resampling | None = None,
    **options: Unpack[SampleOptions],
) -> SamplePlan:
    """What `inpaint` would make, checked; nothing is computed."""
    count = len(captions)
    known = _expanded("image", as_images(image), count)
    keep = _expanded("mask", as_mask(mask), count)
    KeepKnown(known, keep)  # both fit each other, and if not, that is said now
    options = _with_size(options, known)
    chosen = Resampling() if resampling is None else resampling
    if chosen.jump < 1 or chosen.repeats < 1:
        raise UsageError(f"got {chosen}; expected jump and repeats of at least 1")
    regrid = partial(resampling_levels, jump=chosen.jump, repeats=chosen.repeats)
    edits: dict[int, StageEdit | None] = {}
    for stage in _sampled_stages(cascade, options):
        size = _stage_size(cascade, stage, options)
        # A pixel of a small image is known if all it covers is.
        known_mask = _resized(keep.float(), size) > 1 - 1e-4
        keeping = KeepKnown(_resized(known, size), known_mask)
        edits[stage.config.resolution] = StageEdit(transform=keeping, regrid=regrid)
    options["edits"] = edits
    return cascade.plan(captions, seeds=seeds, **options)


def image_to_image(
    cascade: Cascade,
    image: Images,
    captions: Sequence[str],
    *,
    strength: float,
    seeds: Sequence[int],
    **options: Unpack[SampleOptions],
) -> CascadeSample:
    """Sample starting from an image: the base sees it small and noised, the rest enlarges.

    Args:
        cascade: what samples.
        image: as for `inpaint`.
        captions: one an image.
        strength: how much is made anew, in (0, 1]: the time at which the base starts.
        seeds: one an image.
        **options: see `SampleOptions`.

    Raises:
        UsageError: something does not fit; nothing has been computed then.
    """
    plan = plan_image_to_image(cascade, image, captions, strength=strength, seeds=seeds, **options)
    return drain(cascade.generate(plan))


def plan_image_to_image(
    cascade: Cascade,
    image: Images,
    captions: Sequence[str],
    *,
    strength: float,
    seeds: Sequence[int],
    **options: Unpack[SampleOptions],
) -> SamplePlan:
    """What `image_to_image` would make, checked; nothing is computed."""
    if not 0 < strength <= 1:
        raise UsageError(f"got strength={strength}; expected a number in (0, 1]")
    whole = _expanded("image", as_images(image), len(captions))
    options = _with_size(options, whole)
    base = cascade.stages[0]
    start = _resized(whole, _stage_size(cascade, base, options))
    options["edits"] = {base.config.resolution: StageEdit(start=start, start_time=strength)}
    return cascade.plan(captions, seeds=seeds, **options)


def known_channels(edit: StageEdit | None) -> Tensor | None:
    """What conditions an inpainting network: the known image and its mask, (B, 4, H, W).

    None where nothing is known. Order and masking as in Nichol et al. 2021, section 2.4,
    arXiv:2112.10741.
    """
    if edit is None or not isinstance(edit.transform, KeepKnown):
        return None
    mask = edit.transform.mask.float()
    return torch.cat((edit.transform.known.float() * mask, mask), dim=1)


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
