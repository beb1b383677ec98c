"""What is to be sampled, checked whole before anything is computed.

A plan fixes for every stage the size of its images, how it samples, its edit and how many
images are made at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import TypedDict, TypeVar

from torch import Tensor

from calotype.cascade.sizes import (
    check_pixels,
    enlarged,
    first_upscaler,
    pad_lowres,
    padded_lowres_size,
    stage_sizes,
)
from calotype.cascade.stage import Stage
from calotype.cascade.stage_edit import StageEdit
from calotype.cascade.tiles import MAX_TILED_SIDE, OnTile, Tiling
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.errors import UsageError
from calotype.text.encoder import check_captions

# Images of one forward pass: memory stays under 2 GB with the embedded default.
_PIXELS_AT_ONCE = 1024 * 1024
_IMAGES_AT_ONCE = 64
_MAX_SEED = 2**63 - 1
T = TypeVar("T")
PerStage = Sequence[T] | Mapping[int, T]


class SampleOptions(TypedDict, total=False):
    """The optional keywords of `Cascade.sample`, `Cascade.steps` and `Cascade.upscale`.

    Attributes:
        negative_captions: one an image, in place of the null caption; without effect where the
            guidance weight is 1.
        sampling: how each stage samples: a sequence, or a mapping from resolution that may
            leave stages to their own settings.
        stop_at: resolution of the last stage that samples.
        size: height and width of the last stage's images; None = square, as trained.
        edits: as `sampling`, of `StageEdit`.
        max_batch: images of one forward pass; None keeps memory under 2 GB.
        tiling: how super-resolution stages part larger images; None = not at all.
    """

    negative_captions: Sequence[str] | None
    sampling: PerStage[SamplingConfig] | None
    stop_at: int | None
    size: tuple[int, int] | None
    edits: PerStage[StageEdit | None] | None
    max_batch: int | None
    tiling: Tiling | None


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
    """

    index: int
    size: tuple[int, int]
    shown: tuple[int, int]
    sampling: SamplingConfig
    edit: StageEdit | None = None
    batch: int = 1
    tiling: Tiling | None = None


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
        on_tile: told of every tile of stages that part their images.
    """

    captions: tuple[str, ...]
    negatives: tuple[str, ...] | None
    seeds: tuple[int, ...]
    stages: tuple[StagePlan, ...]
    lowres: Tensor | None = None
    on_tile: OnTile | None = None

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
    sampling = _per_stage("sampling", options.get("sampling"), configs)
    edits = _per_stage("edits", options.get("edits"), configs)
    checked = []
    for plan, config, settings, edit in zip(plans, configs, sampling, edits, strict=True):
        tiling = _tiling(options.get("tiling"), plan.size, config)
        settings = config.sampling if settings is None else settings
        config.check_start(settings)
        _check_aug_level(settings, config)
        if edit is not None:
            edit.check(config, settings, (len(texts), 3, *plan.size))
        batch = _batch(plan.size, max_batch, edit, count=len(texts))
        plan = replace(plan, sampling=settings, edit=edit, batch=batch, tiling=tiling)
        checked.append(plan)
    return SamplePlan(texts, negatives, numbers, tuple(checked))


def check_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    """The seeds, each checked to be an integer from 0 to 2^63-1."""
    if isinstance(seeds, Integral):
        raise UsageError(f"got one number as seeds; expected a list: [{seeds}]")
    for seed in seeds:
        whole = isinstance(seed, Integral) and not isinstance(seed, bool)  # numpy's, too
        if not whole or not 0 <= seed <= _MAX_SEED:
            raise UsageError(f"got seed {seed!r:.80}; expected an integer from 0 to 2^63-1")
    return tuple(int(seed) for seed in seeds)


def _per_stage(
    what: str, given: PerStage[T] | None, configs: Sequence[StageConfig]
) -> Sequence[T | None]:
    """What is given for each stage, in their order; None where nothing is."""
    resolutions = [config.resolution for config in configs]
    if given is None:
        return [None] * len(configs)
    if isinstance(given, Mapping):
        unknown = sorted(set(given) - set(resolutions))
        if unknown:
            raise UsageError(f"got {what} for stage {unknown[0]}; expected stages of {resolutions}")
        return [given.get(resolution) for resolution in resolutions]
    if isinstance(given, Sequence) and len(given) == len(configs):
        return given
    kind = type(given).__name__
    got = f"{len(given)} {what}" if isinstance(given, Sequence) else f"{what} of type {kind}"
    raise UsageError(
        f"got {got} for the {len(configs)} stages {resolutions}; expected a mapping from "
        "resolution, or one each"
    )


def _tiling(tiling: Tiling | None, size: tuple[int, int], config: StageConfig) -> Tiling | None:
    """How a stage parts images; None where one tile holds them, or it sees them as a whole."""
    if tiling is None or config.lowres_resolution is None or config.draft is not None:
        check_pixels(size, config)
        return None
    check_pixels(size, config, most=MAX_TILED_SIDE**2)
    return tiling if tiling.tiles(size, config.network.divisor) else None


def _check_aug_level(settings: SamplingConfig, config: StageConfig) -> None:
    base = config.lowres_resolution is None
    if base and settings.aug_level not in (0.0, config.sampling.aug_level):
        raise UsageError(
            f"got aug_level={settings.aug_level:g} for the {config.resolution} stage, which "
            "enlarges nothing; expected it for a stage that does"
        )


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
