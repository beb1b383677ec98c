"""What an image has ahead of it: its stages, their sizes, steps and network calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from calotype.cascade.plan import SamplePlan, StagePlan
from calotype.cascade.sampling import grid_levels
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.diffusion.named import build_schedule


@dataclass(frozen=True)
class Ahead:
    """A stage of one image.

    Args:
        resolution: the stage's.
        size: height and width that it samples.
        steps: of its sampler.
        calls: of its network.
        rows: that the image has in each of them.
    """

    resolution: int
    size: tuple[int, int]
    steps: int
    calls: int
    rows: int

    def to_dict(self) -> dict[str, int]:
        """As the front tells of it."""
        height, width = self.size
        return {
            "resolution": self.resolution,
            "width": width,
            "height": height,
            "steps": self.steps,
        }


def ahead(configs: Sequence[StageConfig], plan: SamplePlan) -> list[Ahead]:
    """The stages of a plan of one image; `configs` are those of the cascade that it was made by."""
    return [_ahead(configs[how.index], how) for how in plan.stages]


def _ahead(config: StageConfig, how: StagePlan) -> Ahead:
    sampling, start = how.sampling, None if how.edit is None else how.edit.start
    if start is not None and sampling.start == "draft":  # as `Stage.levels`
        sampling = replace(sampling, variety=1.0)
    start_time = 1.0 if how.edit is None else how.edit.start_time
    levels = grid_levels(build_schedule(config.schedule), sampling, start_time)
    steps = len(levels) - 1
    tiles = 1
    if how.tiling is not None:
        tiles = max(1, len(how.tiling.tiles(how.size, config.network.divisor)))
    guided = sampling.guidance_weight != 1 and config.network.text_dim > 0
    together = guided and tiles == 1 and sampling.guidance_interval is None
    denoised = levels[:-1]
    if sampling.sampler == "heun":  # once more at the end of every step but the last
        denoised = levels[:-1].repeat_interleave(2)[:-1]
    calls = len(denoised)
    if guided and not together:
        calls += _within(denoised, sampling)
    return Ahead(config.resolution, how.size, steps, calls * tiles, 2 if together else 1)


def _within(levels: Tensor, sampling: SamplingConfig) -> int:
    """At how many levels guidance acts."""
    if sampling.guidance_interval is None:
        return len(levels)
    sigmas = (-levels / 2).exp()
    high, low = max(sampling.guidance_interval), min(sampling.guidance_interval)
    return int(((sigmas >= low) & (sigmas <= high)).sum())
