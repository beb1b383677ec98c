"""What is to be sampled, checked whole before anything is computed.

A plan fixes for every stage the size of its images, how it samples, its edit and how many
images are made at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from torch import Tensor

from calotype.cascade.guide import Pull
from calotype.cascade.plan_checks import (
    PerStage,
    check_aug_level,
    check_seeds,
    per_stage,
    tiling_of,
)
from calotype.cascade.sizes import (
    enlarged,
    first_upscaler,
    pad_lowres,
    padded_lowres_size,
    stage_sizes,
)
from calotype.cascade.stage import Stage
from calotype.cascade.stage_edit import StageEdit
from calotype.cascade.tiles import OnTile, Tiling
from calotype.cascade.told import check_classes, check_guidance
from calotype.config.sampling import SamplingConfig
from calotype.errors import UsageError
from calotype.text.encoder import check_captions

# Images of one forward pass: memory stays under 2 GB with the embedded default.
_PIXELS_AT_ONCE = 1024 * 1024
_IMAGES_AT_ONCE = 64
_PULLED_AT_ONCE = 16  # a guide keeps what its gradient is made of


class SampleOptions(TypedDict, total=False):
    """The optional keywords of `Cascade.sample`, `Cascade.steps` and `Cascade.upscale`.

    Attributes:
        negative_captions: one an image, in place of the null caption; without effect where the
            guidance weight is 1.
        classes: names of classes, one an image; None in it, or in its place = nobody says, which is
            the null class of a model that was trained with one.
        sampling: how each stage samples: a sequence, or a mapping from resolution that may
            leave stages to their own settings.
        stop_at: resolution of the last stage that samples.
        size: height and width of the last stage's images; None = square, as trained.
        edits: as `sampling`, of `StageEdit`.
        max_batch: images of one forward pass; None keeps memory under 2 GB.
        tiling: how super-resolution stages part larger images; None = not at all.
        pulls: guides that pull what the base samples.
    """

    negative_captions: Sequence[str] | None
    classes: Sequence[str | None] | None
    sampling: PerStage[SamplingConfig] | None
    stop_at: int | None
    size: tuple[int, int] | None
    edits: PerStage[StageEdit | None] | None
    max_batch: int | None
    tiling: Tiling | None
    pulls: Sequence[Pull]


@dataclass(frozen=True)
class StagePlan:
    """How one stage samples.

    Args:
        index: its place in the cascade, which is also its stream of noise.
        size: height and width it samples.
        shown: height and width kept in the result, from the top left.
        sampling: its settings.
        edit: its edit, if any.
        batch: images of one forward pass.
        tiling: how its images are parted; None = not at all.
        pulls: guides that pull its images.
    """

    index: int
    size: tuple[int, int]
    shown: tuple[int, int]
    sampling: SamplingConfig
    edit: StageEdit | None = None
    batch: int = 1
    tiling: Tiling | None = None
    pulls: tuple[Pull, ...] = ()


@dataclass(frozen=True)
class SamplePlan:
    """What is made, checked: one caption, negative caption and seed an image.

    Args:
        captions: of the images.
        negatives: negative captions; None = the null caption.
        seeds: of the images.
        stages: how each stage samples.
        lowres: the images to enlarge, (B, 3, h, w), padded to what the first stage takes; None =
            the plan begins with a base.
        classes: of the images, by name, None = nobody says; None = of none.
        on_tile: told of every tile of stages that part their images.
    """

    captions: tuple[str, ...]
    negatives: tuple[str, ...] | None
    seeds: tuple[int, ...]
    stages: tuple[StagePlan, ...]
    lowres: Tensor | None = None
    classes: tuple[str | None, ...] | None = None
    on_tile: OnTile | None = None

    def edit_of(self, stage: StagePlan, rows: slice) -> StageEdit | None:
        """A stage's edit of some of the images, with what guides make of them."""
        edit = None if stage.edit is None else stage.edit.rows(rows)
        if not stage.pulls:
            return edit
        captions, seeds = self.captions[rows], self.seeds[rows]
        guidance = tuple(pull.guidance(captions, seeds) for pull in stage.pulls)
        return replace(StageEdit() if edit is None else edit, guidance=guidance)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the finished images."""
        return self.stages[-1].shown

    def rows(self, rows: slice) -> SamplePlan:
        """The plan of some of the images: they come out as they would among the others."""
        return replace(
            self,
            captions=self.captions[rows],
            negatives=None if self.negatives is None else self.negatives[rows],
            seeds=self.seeds[rows],
            stages=tuple(
                replace(stage, edit=None if stage.edit is None else stage.edit.rows(rows))
                for stage in self.stages
            ),
            lowres=None if self.lowres is None else self.lowres[rows],
            classes=None if self.classes is None else self.classes[rows],
        )


def plan_sample(
    stages: Sequence[Stage], captions: Sequence[str], seeds: Sequence[int], options: SampleOptions
) -> SamplePlan:
    """Plan sampling from captions alone, from the base on.

    Raises:
        UsageError: counts that do not match, seeds, sizes or resolutions out of range, or settings
            that a stage cannot sample with.
    """
    if stages[0].config.lowres_resolution is not None:
        raise UsageError(
            f"this cascade begins with {stages[0].config.lowres_resolution} pixel images to "
            "enlarge; use upscale"
        )
    configs = [stage.config for stage in stages[: _stop_index(stages, options) + 1]]
    size = options.get("size")
    if size is None:
        size = (configs[-1].resolution, configs[-1].resolution)
    if not isinstance(size, Sequence) or len(size) != 2:
        raise UsageError(
            f"got size={size!r:.80}; expected (height, width) in pixels; stop_at takes a resolution"
        )
    sizes = stage_sizes((size[0], size[1]), configs)
    pairs = zip(sizes, configs, strict=True)
    plans = [StagePlan(i, size, size, config.sampling) for i, (size, config) in enumerate(pairs)]
    return _plan(stages, plans, captions, seeds=seeds, options=options)


def plan_upscale(
    stages: Sequence[Stage],
    lowres: Tensor,
    captions: Sequence[str],
    *,
    seeds: Sequence[int],
    options: SampleOptions,
) -> SamplePlan:
    """Plan enlarging images, from `as_images`, by the stages made for about their size.

    Images whose sides do not fit are made a little larger and cut; see `padded_lowres_size`.

    Raises:
        UsageError: as `plan_sample`, and images that are too large.
    """
    if options.get("size") is not None:
        raise UsageError("got a size for upscale; the size follows from the image's")
    if len(lowres) != len(captions):
        raise UsageError(f"got {len(lowres)} images and {len(captions)} captions; expected equal")
    height, width = int(lowres.shape[2]), int(lowres.shape[3])
    configs = [stage.config for stage in stages]
    first = first_upscaler(configs, math.sqrt(height * width))
    stop = _stop_index(stages, options)
    if stop < first:
        raise UsageError(
            f"got stop_at={configs[stop].resolution} for an image of {width}x{height}, "
            f"which the {configs[first].resolution} stage enlarges; expected that or more"
        )
    sampled, source = configs[first : stop + 1], configs[first].lowres_resolution
    assert source is not None
    padded = padded_lowres_size((height, width), sampled)
    plans = [
        StagePlan(i, enlarged(padded, c, source), enlarged((height, width), c, source), c.sampling)
        for i, c in enumerate(sampled, first)
    ]
    plan = _plan(stages, plans, captions, seeds=seeds, options=options)
    return replace(plan, lowres=pad_lowres(lowres, sampled[0], plans[0].size))


def _plan(
    stages: Sequence[Stage],
    plans: Sequence[StagePlan],
    captions: Sequence[str],
    *,
    seeds: Sequence[int],
    options: SampleOptions,
) -> SamplePlan:
    """Check all that is given, and plan it; `plans` say which stages and sizes."""
    texts, numbers = check_captions(captions), check_seeds(seeds)
    negatives = options.get("negative_captions")
    if negatives is not None:
        negatives = check_captions(negatives)
    for what, given in (("seeds", numbers), ("negative captions", negatives)):
        if given is not None and len(given) != len(texts):
            raise UsageError(f"got {len(given)} {what} for {len(texts)} captions; expected as many")
    max_batch = options.get("max_batch")
    if max_batch is not None and max_batch < 1:
        raise UsageError(f"got max_batch={max_batch}; expected at least 1")
    configs = [stages[plan.index].config for plan in plans]
    sampling = per_stage("sampling", options.get("sampling"), configs)
    edits = per_stage("edits", options.get("edits"), configs)
    pulls, checked = tuple(options.get("pulls", ())), []
    for plan, config, settings, edit in zip(plans, configs, sampling, edits, strict=True):
        tiling = tiling_of(options.get("tiling"), plan.size, config)
        settings = config.sampling if settings is None else settings
        config.check_start(settings)
        check_aug_level(settings, config)
        check_guidance(settings, config)
        if edit is not None:
            edit.check(config, settings, (len(texts), 3, *plan.size))
        batch = _batch(plan.size, max_batch, edit, count=len(texts))
        plan = replace(plan, sampling=settings, edit=edit, batch=batch, tiling=tiling)
        checked.append(plan)
    if pulls:
        first = checked[0]
        for pull in pulls:
            pull.check(configs[0], first.sampling, first.size)
        batch = first.batch if max_batch is not None else min(first.batch, _PULLED_AT_ONCE)
        checked[0] = replace(first, pulls=pulls, batch=batch)
    classes = check_classes(options.get("classes"), configs, count=len(texts))
    return SamplePlan(texts, negatives, numbers, tuple(checked), classes=classes)


def _batch(
    size: tuple[int, int], max_batch: int | None, edit: StageEdit | None, *, count: int
) -> int:
    if edit is not None and edit.transform is not None and not hasattr(edit.transform, "rows"):
        return count  # an unknown transform may hold tensors of the whole batch
    if max_batch is not None:
        return max_batch
    return max(1, min(_IMAGES_AT_ONCE, _PIXELS_AT_ONCE // (size[0] * size[1])))


def _stop_index(stages: Sequence[Stage], options: SampleOptions) -> int:
    resolutions, stop_at = [stage.config.resolution for stage in stages], options.get("stop_at")
    if stop_at is None:
        return len(stages) - 1
    if stop_at not in resolutions:
        raise UsageError(f"got stop_at={stop_at}; expected one of {resolutions}")
    return resolutions.index(stop_at)
