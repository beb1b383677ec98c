"""Is a super-resolution stage worth it? Against bicubic enlargement, on images never trained on.

Real images are shrunk with the filter that training uses, enlarged again both ways, and compared
with the originals. Fidelity is not all there is: real samples of a base have defects that shrunk
images lack, so `edge_contrast` says how sharp their enlargements come out.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calotype.cascade import Cascade, SampleOptions, Tiling
from calotype.data.resize import area_resize
from calotype.diffusion import upsample_lowres
from calotype.errors import UsageError
from calotype.evaluation.metrics.pixels import psnr

_EDGE_FRACTION = 0.01
_PIXELS_AT_ONCE = 1024 * 1024


@dataclass(frozen=True)
class RealImage:
    """A held-out image, (3, H, W) in [-1, 1], and what it shows."""

    image: Tensor
    caption: str


@dataclass(frozen=True)
class StepsResult:
    """How a stage fared with a number of steps: mean PSNR, in dB, and seconds per image.

    `better` is the fraction of the images where it beat bicubic enlargement, in [0, 1].
    """

    steps: int
    psnr: float
    better: float
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """A stage against bicubic enlargement, whose mean PSNR is `bicubic`, in dB."""

    resolution: int
    images: int
    bicubic: float
    results: tuple[StepsResult, ...]


def edge_contrast(images: Tensor) -> float:
    """How sharp the sharpest edges are: mean of the steepest 1 % of brightness steps, in [0, 2].

    Args:
        images: (B, 3, H, W) in [-1, 1]; a step is between neighbours in a row or column.
    """
    grey = images.float().mean(1)
    across, down = grey.diff(dim=2).abs().flatten(1), grey.diff(dim=1).abs().flatten(1)
    steps = torch.cat((across, down), dim=1)
    count = max(1, round(steps.shape[1] * _EDGE_FRACTION))
    return float(steps.topk(count, dim=1).values.mean())


def compare_with_bicubic(
    cascade: Cascade,
    resolution: int,
    images: Iterable[RealImage],
    *,
    steps: Sequence[int],
    seed: int = 1,
    tiling: Tiling | None = None,
) -> Comparison:
    """Enlarge shrunken real images with a stage, conditioned as clean (aug_level 0).

    They are held out, each (3, resolution, resolution). Of the stage's sampling settings only the
    numbers of steps change; the seed is the same for all images. With a `tiling` they may be large.

    Raises:
        UsageError: there is no such stage, or there are no images.
    """
    larger = [stage for stage in cascade.stages if stage.config.lowres_resolution is not None]
    stage = next((stage for stage in larger if stage.config.resolution == resolution), None)
    if stage is None:
        raise UsageError(f"got {resolution=}; {cascade.name!r} has no stage that samples it")
    seconds = dict.fromkeys(steps, 0.0)
    reached: dict[int, list[Tensor]] = {count: [] for count in steps}
    bicubic: list[Tensor] = []
    remaining = iter(images)
    while batch := list(itertools.islice(remaining, max(1, _PIXELS_AT_ONCE // resolution**2))):
        x = torch.stack([item.image for item in batch])
        captions = [item.caption for item in batch]
        lowres = area_resize(x, stage.config.lowres_resolution or 1).clamp(-1, 1)
        bicubic.append(psnr(upsample_lowres(lowres, resolution), x))
        for count in steps:
            sampling = replace(stage.config.sampling, steps=count, aug_level=0.0)
            options: SampleOptions = {"stop_at": resolution, "sampling": {resolution: sampling}}
            options["tiling"] = tiling
            began = time.perf_counter()
            sample = cascade.upscale(lowres, captions, seeds=[seed] * len(batch), **options)
            seconds[count] += time.perf_counter() - began
            reached[count].append(psnr(sample.images[-1], x))
    if not bicubic:
        raise UsageError(f"got no images of {resolution} pixels; expected some held-out ones")
    baseline = torch.cat(bicubic)
    results = []
    for count in steps:
        values, spent = torch.cat(reached[count]), seconds[count] / len(baseline)
        better = float((values > baseline).double().mean())
        results.append(StepsResult(count, float(values.mean()), better, spent))
    return Comparison(resolution, len(baseline), float(baseline.mean()), tuple(results))
